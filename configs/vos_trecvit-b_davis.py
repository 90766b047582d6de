# Object segmentation at full scale, for DAVIS: TRecViT-B/16 with object tokens, from clips of images to video.
#
#   torchrun --nproc-per-node 8 tools/train.py configs/vos_trecvit-b_davis.py --launcher pytorch \
#       --cfg-options preset=static                                                   # 1: static images and procedural
#   torchrun --nproc-per-node 8 tools/train.py configs/vos_trecvit-b_davis.py --launcher pytorch \
#       --cfg-options load_from=work_dirs/vos_trecvit-b_davis/iter_150000.pth         # 2: video
#   tools/test.py configs/vos_trecvit_davis.py CHECKPOINT --cfg-options data_root=data/davis
#
# Hardware and time: not run. Estimated for 8 GPUs of 80 GB: two days for stage 1, three for stage 2.
# Expected: not known. Heads of this kind with a backbone of this size are published at J&F 0.80 to 0.86 on DAVIS 2017
#   val after the same two stages; the default recipe, vos_trecvit.py, is the one that was measured.
# The two stages, their data and the growing stride of frames follow STM and STCN; rates and steps are ours.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', max_side=864, pad_multiple=16),
    backbone=dict(type='TRecViT', variant='B/16', image_size=384, checkpointing=True),
    heads=dict(masks=dict(type='ObjectTokenHead', max_objects=12)),
)

train_dataloader = dict(
    batch_size=4,
    num_workers=12,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='MixtureDataset',
        length=100000,
        weights=[0.3, 0.5, 0.2],
        datasets=[
            dict(
                type='DAVISDataset',
                data_root='data/davis',
                split='train',
                version='2017',
                late_objects=True,
                num_frames=12,
                frame_stride=(1, 5),
                max_objects=4,
                max_side=960,
                pipeline=[
                    dict(type='TemporalReverse', p=0.5),
                    dict(type='ScaleJitter', size=(384, 384), scale=(0.8, 2.0)),
                    dict(type='HorizontalFlip', p=0.5),
                    dict(type='ColorJitter'),
                ],
            ),
            dict(
                type='YouTubeVOSDataset',
                data_root='data/youtube_vos',
                split='train',
                num_frames=12,
                frame_stride=(1, 2),
                max_objects=4,
                max_side=960,
                pipeline=[
                    dict(type='TemporalReverse', p=0.5),
                    dict(type='ScaleJitter', size=(384, 384), scale=(0.8, 2.0)),
                    dict(type='HorizontalFlip', p=0.5),
                    dict(type='ColorJitter'),
                ],
            ),
            dict(
                type='SyntheticVideoDataset',
                length=100000,
                size=(384, 384),
                num_frames=12,
                num_points=1,
                num_targets=(1, 4),
                split='train',
            ),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(type='DAVISDataset', data_root='data/davis', split='val', version='2017'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='MaskMetric', dataset_name='davis')
test_evaluator = val_evaluator

train_cfg = dict(type='FastResumeIterLoop', max_iters=100000, val_interval=5000)  # ours
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', fused=True, lr=1e-4, weight_decay=0.05),  # ours
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [  # ours
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=1000),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=1000, end=100000, T_max=99000),
]

presets = dict(
    # Stage 1: what a single image can teach, for longer and at a higher rate.
    static={
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.weights': [0.6, 0.4],
        'train_dataloader.dataset.datasets': [
            dict(
                type='CocoClipsDataset',
                ann_file='data/coco/annotations/instances_train2017.json',
                image_root='data/coco/train2017',
                size=(384, 384),
                num_frames=6,
                max_objects=4,
            ),
            dict(
                type='SyntheticVideoDataset',
                length=100000,
                size=(384, 384),
                num_frames=6,
                num_points=1,
                num_targets=(1, 4),
                split='train',
            ),
        ],
        'train_cfg.max_iters': 150000,
        'param_scheduler.1.end': 150000,
        'param_scheduler.1.T_max': 149000,
        'optim_wrapper.optimizer.lr': 2e-4,
    },
)
