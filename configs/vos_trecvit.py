# The default object segmenter: a small TRecViT with object tokens, from scratch on procedural video.
#
#   python tools/train.py configs/vos_trecvit.py
#
# Hardware and time: two CPU cores, within 15 minutes; docs/experiments.md has measured runs.
# Expected: J&F on held-out clips at least 0.2 above copying the first mask, and above label propagation (measured:
#   0.568, 0.297 and 0.520).

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', max_side=384, pad_multiple=16),
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
        masks=dict(type='ObjectTokenHead', channels=48, hidden_dim=32, carry=dict(levels=(0, 1, 2), num_context=5))
    ),
)

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticVideoDataset',
        length=100000,
        size=(96, 96),
        num_frames=8,
        num_points=1,
        num_targets=(1, 3),
        motion=0.8,
        shared_surfaces=0.5,
        reference_frames=16,
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
        type='SyntheticVideoDataset',
        length=16,
        size=(128, 128),
        num_frames=24,
        num_points=1,
        num_targets=(1, 3),
        motion=0.7,
        shared_surfaces=0.5,
        split='val',
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='MaskMetric', dataset_name='synthetic_vos')
test_evaluator = val_evaluator

# The last evaluation is made again with all memory but the given masks cleared before every frame, and with masks that
# are carried along by the features of the same backbone.
reset_state = 'all'
baseline = 'label_propagation'

train_cfg = dict(type='FastResumeIterLoop', max_iters=640, val_interval=320)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='AdamW', fused=True, lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=640, T_max=590),
]

# Sizes for other machines and purposes: --cfg-options preset=NAME
presets = dict(
    # The segmentation head in the box: on the backbone that tracks points, which stays as it is.
    boxed={
        '+pretrained': dict(backbone='boxed', points='boxed'),
        '+model.heads.points': dict(type='CostVolumePointHead', channels=48, hidden_dim=128, iterations=2),
        '+model.freeze': ('backbone', 'points'),
        'train_dataloader.batch_size': 3,
        'train_dataloader.dataset.size': (128, 128),
        'train_dataloader.dataset.shared_surfaces': 0.6,
        'train_cfg.max_iters': 1100,
        'train_cfg.val_interval': 5000,
        'param_scheduler.1.eta_min': 1e-5,
        'param_scheduler.1.end': 1100,
        'param_scheduler.1.T_max': 1050,
    },
)
