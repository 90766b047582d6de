# Object segmentation at full scale, for YouTube-VOS, MOSE and LVOS: TRecViT-B/8 with object tokens and long clips.
#
#   torchrun --nproc-per-node 8 tools/train.py configs/vos_trecvit-b_youtubevos.py --launcher pytorch \
#       --cfg-options preset=static                                                   # 1: static images and procedural
#   torchrun --nproc-per-node 8 tools/train.py configs/vos_trecvit-b_youtubevos.py --launcher pytorch \
#       --cfg-options load_from=work_dirs/vos_trecvit-b_youtubevos/iter_150000.pth    # 2: video
#
# Hardware and time: not run. Estimated for 8 GPUs of 80 GB: five days for stage 1, eight for stage 2.
# Expected: not known. The truth of YouTube-VOS valid is not public: masks are written for its server, and DAVIS val is
#   watched during training. Rates, steps and shares are ours.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', max_side=864, pad_multiple=8),
    backbone=dict(type='TRecViT', variant='B/8', image_size=384, checkpointing=True),
    heads=dict(masks=dict(type='ObjectTokenHead', max_objects=20)),
)

train_dataloader = dict(
    batch_size=2,
    num_workers=12,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='MixtureDataset',
        length=100000,
        weights=[0.5, 0.2, 0.1, 0.2],
        datasets=[
            dict(
                type='YouTubeVOSDataset',
                data_root='data/youtube_vos',
                split='train',
                num_frames=16,
                frame_stride=(1, 2),
                max_objects=6,
                max_side=960,
                pipeline=[
                    dict(type='TemporalReverse', p=0.5),
                    dict(type='ScaleJitter', size=(384, 384), scale=(0.8, 2.0)),
                    dict(type='HorizontalFlip', p=0.5),
                    dict(type='ColorJitter'),
                ],
            ),
            dict(
                type='MOSEDataset',
                data_root='data/mose',
                split='train',
                num_frames=16,
                frame_stride=(1, 4),
                max_objects=6,
                max_side=960,
                pipeline=[
                    dict(type='TemporalReverse', p=0.5),
                    dict(type='ScaleJitter', size=(384, 384), scale=(0.8, 2.0)),
                    dict(type='HorizontalFlip', p=0.5),
                    dict(type='ColorJitter'),
                ],
            ),
            dict(
                type='DAVISDataset',
                data_root='data/davis',
                split='train',
                version='2017',
                late_objects=True,
                num_frames=16,
                frame_stride=(1, 5),
                max_objects=6,
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
                num_frames=16,
                num_points=1,
                num_targets=(1, 6),
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

train_cfg = dict(type='FastResumeIterLoop', max_iters=150000, val_interval=5000)  # ours
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
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=1000, end=150000, T_max=149000),
]

presets = dict(
    # Stage 1: what a single image can teach.
    static={
        'train_dataloader.batch_size': 4,
        'train_dataloader.dataset.weights': [0.6, 0.4],
        'train_dataloader.dataset.datasets': [
            dict(
                type='CocoClipsDataset',
                ann_file='data/coco/annotations/instances_train2017.json',
                image_root='data/coco/train2017',
                size=(384, 384),
                num_frames=6,
                max_objects=6,
            ),
            dict(
                type='SyntheticVideoDataset',
                length=100000,
                size=(384, 384),
                num_frames=6,
                num_points=1,
                num_targets=(1, 6),
                split='train',
            ),
        ],
        'optim_wrapper.optimizer.lr': 2e-4,
    },
)
