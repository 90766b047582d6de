# The default depth model: looks and motion. A DPT head on the small TRecViT in the box, which stays as is, learns depth
# from what ray-cast scenes look like; when it is used, depth from motion joins it, which is closed form.
#
#   python tools/train.py configs/depth_trecvit.py
#
# Hardware and time: two CPU cores, about 15 minutes, 6 with bf16. docs/experiments.md has measured runs and says what
# is missing.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', max_side=224, pad_multiple=16),
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
            steadiness=0.8,
            context=dict(stride=16, depth=2, num_heads=4),
            encode=True,
            confidence=True,
            loss_weights=dict(level=0.3),
        )
    ),
)
pretrained = dict(backbone='boxed')

# Three frames of a scene, far apart: many scenes matter more than long clips. Each is rendered once, seen four times.
train_dataloader = dict(
    batch_size=12,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='RepeatedClipsDataset',
        times=4,
        dataset=dict(
            type='SyntheticSceneDataset',
            length=100000,
            size=(96, 144),
            num_frames=3,
            reference_frames=12,
            num_points=1,
            split='train',
        ),
        pipeline=[
            dict(type='ScaleJitter', size=(80, 120), scale=(1.0, 1.6)),
            dict(type='HorizontalFlip', p=0.5),
            dict(type='ColorJitter'),
        ],
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

train_cfg = dict(type='FastResumeIterLoop', max_iters=500, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# Muon comes further than AdamW with the same pictures; docs/experiments.md compares.
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='MuonAdamW', lr=0.02, adam_lr=1e-3, weight_decay=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False, begin=50, end=500, T_max=450),
]

# The depth head in the box: the same for ten times as long, and then on larger pictures.
#   --cfg-options preset=boxed
#   --cfg-options preset=boxed_finish load_from=THE_LAST
presets = dict(
    boxed={
        'train_cfg.max_iters': 5000,
        'train_cfg.val_interval': 5000,
        'param_scheduler.1.end': 5000,
        'param_scheduler.1.T_max': 4950,
    },
    boxed_finish={
        'train_dataloader.batch_size': 8,
        'train_dataloader.dataset.dataset.size': (144, 216),
        'train_dataloader.dataset.pipeline.0.size': (112, 168),
        'optim_wrapper.optimizer.lr': 0.01,
        'train_cfg.max_iters': 3000,
        'train_cfg.val_interval': 3000,
        'param_scheduler.1.end': 3000,
        'param_scheduler.1.T_max': 2950,
    },
)
