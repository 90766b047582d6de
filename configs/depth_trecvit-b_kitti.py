# Metric depth of driving at full scale: TRecViT-B/16 with a DPT head on KITTI, in metres.
#
#   torchrun --nproc-per-node 8 tools/train.py configs/depth_trecvit-b_kitti.py --launcher pytorch \
#       --cfg-options load_from=work_dirs/depth_trecvit-b_mixed/iter_150000.pth       # or without: from scratch
#   tools/test.py configs/depth_trecvit-b_kitti.py CHECKPOINT
#   tools/test.py configs/depth_trecvit-b_kitti.py CHECKPOINT --cfg-options preset=vda
#
# Hardware and time: not run. Estimated for 8 GPUs of 80 GB: a day.
# Expected: not known. DPT, from single images, is published at AbsRel 0.062 on the split of Eigen et al.; the default
#   recipe, depth_trecvit.py, is the one that was measured.
# Depth counts as seen by one camera: crops and sizes change the focal length, and the head undoes that.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', max_side=960, pad_multiple=32),
    backbone=dict(type='TRecViT', variant='B/16', image_size=(256, 704), out_indices=(2, 5, 8, 11), checkpointing=True),
    heads=dict(
        depth=dict(
            type='DPTDepthHead',
            kind='depth',
            max_depth_m=80.0,
            canonical_focal_px=560.0,  # KITTI's, in pixels of 960 x 290
            scales=(4, 8, 16, 32),
            widths=(96, 192, 384, 512),
            parallax=dict(),
            steadiness=0.8,
            confidence=True,
        )
    ),
)

train_dataloader = dict(
    batch_size=2,
    num_workers=12,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='KITTIDepthDataset',
        data_root='data/kitti',
        split='train',
        cameras=(2, 3),
        num_frames=12,
        frame_stride=(1, 2),
        max_side=960,
        pipeline=[
            dict(type='ScaleJitter', size=(256, 704), scale=(1.0, 1.4)),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ColorJitter'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(type='KITTIDepthDataset', data_root='data/kitti', split='val', max_frames=110),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='DepthMetric', dataset_name='kitti', alignment='none', cap_m=80.0, crop='garg')
test_evaluator = val_evaluator

train_cfg = dict(type='FastResumeIterLoop', max_iters=60000, val_interval=5000)  # ours
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
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=False, begin=1000, end=60000, T_max=59000),
]

presets = dict(
    # Numbers beside those of Video-Depth-Anything: one scale and shift per clip, no crop.
    vda={
        'test_evaluator': dict(
            type='DepthMetric', dataset_name='kitti', alignment='scale_shift_disparity_clip', cap_m=80.0
        ),
    },
)
