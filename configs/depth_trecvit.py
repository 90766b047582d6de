# The default depth model: depth from motion and looks. A DPT head on the small TRecViT in the box, which stays as is,
# starts from what the motion between frames says, and is trained on ray-cast scenes through which a camera travels.
#
#   python tools/train.py configs/depth_trecvit.py
#
# Hardware and time: two CPU cores, about 15 minutes. docs/experiments.md has measured runs and says what is missing.

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
            widths=(32, 64, 128, 192),
            parallax=dict(),
            steadiness=0.7,
            context=dict(stride=16, depth=2, num_heads=4),
            encode=True,
            confidence=True,
        )
    ),
)
pretrained = dict(backbone='boxed')

train_dataloader = dict(
    batch_size=3,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticSceneDataset',
        length=100000,
        size=(64, 96),
        num_frames=8,
        reference_frames=12,
        num_points=1,
        travel=0.7,
        split='train',
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticSceneDataset', length=16, size=(112, 168), num_frames=16, num_points=1, travel=0.7, split='val'
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='DepthMetric', dataset_name='synthetic_depth', alignment='scale_shift_disparity_clip', cap_m=80.0
)
test_evaluator = val_evaluator

# The last evaluation is made again with all memory cleared before every frame.
reset_state = 'all'

train_cfg = dict(type='FastResumeIterLoop', max_iters=800, val_interval=800)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# Muon learns as much from half the views; docs/experiments.md compares.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='MuonAdamW', lr=0.02, adam_lr=1e-3, weight_decay=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False, begin=50, end=800, T_max=750),
]

# The depth head in the box saw single pictures first, many of them, and then clips, at half the rate:
#   --cfg-options preset=pictures
#   --cfg-options preset=clips load_from=THE_LAST
presets = dict(
    pictures={
        'train_dataloader.batch_size': 48,
        'train_dataloader.num_workers': 2,
        'train_dataloader.dataset.size': (112, 168),
        'train_dataloader.dataset.num_frames': 1,
        'train_dataloader.dataset.travel': None,
        'train_dataloader.dataset.pipeline': [
            dict(type='ScaleJitter', size=(112, 168), scale=(1.0, 1.8)),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ColorJitter'),
        ],
        'train_cfg.max_iters': 5000,
        'train_cfg.val_interval': 5000,
        'param_scheduler.1.end': 5000,
        'param_scheduler.1.T_max': 4950,
    },
    clips={
        'train_dataloader.dataset.size': (112, 168),
        'train_dataloader.dataset.num_frames': 16,
        'train_dataloader.dataset.reference_frames': 24,
        'optim_wrapper.optimizer.lr': 0.01,
        'optim_wrapper.optimizer.adam_lr': 5e-4,
        'train_cfg.max_iters': 1000,
        'train_cfg.val_interval': 1000,
        'param_scheduler.1.end': 1000,
        'param_scheduler.1.T_max': 950,
    },
)
