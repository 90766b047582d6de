# TAPNext in small: points as tokens through a TRecViT trunk, from scratch, to compare attention modes on one CPU core.
#
#   python tools/train.py configs/point_track_tapnext_tiny.py
#   python tools/train.py configs/point_track_tapnext_tiny.py --cfg-options preset=read_only
#
# Hardware and time: one CPU core, about 4 minutes of its time (docs/experiments.md, "TAPNext head: full or read-only
#   prompts").
# Expected: delta_avg 0.13, just below zero motion (0.144). Point tokens from scratch want far more compute before they
#   track; for tracking use point_track_trecvit.py or the released weights.
# What differs from TAPNext is meant to shorten the way to matching: a convolutional stem, query positions in the very
#   code of the patches (the table of the queries is the patch grid), and a loss on the last layer alone.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', input_size=(24, 24), value_range='signed'),
    backbone=dict(
        type='TRecViT',
        embed_dim=64,
        depth=3,
        num_heads=4,
        mlp_dim=128,
        lru_width=64,
        patch_size=4,
        image_size=24,
        position='sincos2d',
        stem='conv',
        min_rad=0.9,
    ),
    heads=dict(
        points=dict(
            type='TAPNextHead',
            image_size=(6, 6),
            num_bins=32,
            bin_size=0.75,
            hidden_dim=128,
            soft_argmax_threshold=3,
            softmax_temperature=1.0,
            border='zero',
            attention='full',
            loss=dict(type='TAPNextLoss', huber_weight=0.1, layer_weight=0.0),
        )
    ),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticVideoDataset',
        length=100000,
        size=(24, 24),
        num_frames=4,
        num_points=32,
        num_objects=(1, 2),
        motion=0.6,
        nonrigid=0.0,
        photometric=0.0,
        zoom=False,
        query_mode='first',
        split='train',
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticVideoDataset',
        length=200,
        size=(24, 24),
        num_frames=4,
        num_points=32,
        num_objects=(1, 2),
        motion=0.6,
        nonrigid=0.0,
        photometric=0.0,
        zoom=False,
        split='val',
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='TapVidMetric', dataset_name='synthetic')
test_evaluator = val_evaluator

train_cfg = dict(type='FastResumeIterLoop', max_iters=700, val_interval=700)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='AdamW', fused=True, lr=3e-3, betas=(0.9, 0.98), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=3e-5, by_epoch=False, begin=50, end=700, T_max=650),
]

presets = dict(read_only={'model.heads.points.attention': 'read_only'})
