# The default depth model: a DPT head on the small TRecViT in the box, which stays as it is, on ray-cast scenes.
#
#   python tools/train.py configs/depth_trecvit.py
#
# Hardware and time: two CPU cores, about 15 minutes. docs/experiments.md has measured runs and says what is missing:
#   depth from single views needs many more of them than a quarter of an hour shows.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', max_side=384, pad_multiple=16),
    freeze=('backbone',),
    backbone=dict(
        type='TRecViT',
        embed_dim=128,
        depth=4,
        num_heads=4,
        mlp_dim=256,
        lru_width=128,
        patch_size=16,
        image_size=128,
        position='learned',
        stem='conv',
        stem_channels=(24, 48, 64, 128),
        stem_levels=(2, 4, 8),
    ),
    heads=dict(
        depth=dict(
            type='DPTDepthHead',
            kind='disparity',
            invariance='scale',
            scales=(4, 8, 16, 32),
            widths=(40, 56, 80, 112),
            parallax=dict(),
            context=dict(stride=16, depth=2, num_heads=4),
            encode=True,
            confidence=True,
        )
    ),
)
pretrained = dict(backbone='boxed')

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(type='SyntheticSceneDataset', length=100000, size=(64, 96), num_frames=6, num_points=1, split='train'),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(type='SyntheticSceneDataset', length=16, size=(96, 144), num_frames=24, num_points=1, split='val'),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='DepthMetric', dataset_name='synthetic_depth', alignment='scale_shift_disparity_clip', cap_m=80.0
)
test_evaluator = val_evaluator

# The last evaluation is made again with all memory cleared before every frame.
reset_state = 'all'

train_cfg = dict(type='FastResumeIterLoop', max_iters=1200, val_interval=1200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=1200, T_max=1150),
]
