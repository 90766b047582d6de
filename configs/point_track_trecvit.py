# The default point tracker: a small TRecViT with a cost-volume head, from scratch on procedural video.
#
#   python tools/train.py configs/point_track_trecvit.py
#   python tools/train.py configs/point_track_trecvit.py --cfg-options preset=gpu     # one GPU: bigger model and clips
#
# Hardware and time: see docs/experiments.md for measured runs.
# Expected: at least 2.5x the delta_avg of zero motion on the held-out clips.

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
    heads=dict(points=dict(type='CostVolumePointHead', channels=48, hidden_dim=128, iterations=2)),
)

train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticVideoDataset',
        length=100000,
        size=(96, 96),
        num_frames=8,
        num_points=48,
        motion=0.6,
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
        type='SyntheticVideoDataset', length=16, size=(128, 128), num_frames=24, num_points=48, motion=0.7, split='val'
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='TapVidMetric', dataset_name='synthetic')
test_evaluator = val_evaluator

# The last evaluation is made twice: as it is, and with all memory but the queries cleared before every frame.
reset_state = 'all'

train_cfg = dict(type='FastResumeIterLoop', max_iters=560, val_interval=280)
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
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=560, T_max=510),
]

# Sizes for other machines and purposes: --cfg-options preset=NAME
presets = dict(
    # One GPU of 16 GB or more, about a day (estimated, not run): bigger model, frames, clips and batch.
    gpu={
        'model.backbone.embed_dim': 384,
        'model.backbone.depth': 8,
        'model.backbone.num_heads': 6,
        'model.backbone.mlp_dim': 1536,
        'model.backbone.lru_width': 384,
        'model.backbone.patch_size': 8,
        'model.backbone.image_size': 256,
        'model.backbone.stem_channels': (64, 96, 192),
        'model.backbone.stem_levels': (2, 4),
        'model.heads.points.channels': 128,
        'model.heads.points.hidden_dim': 256,
        'model.heads.points.iterations': 4,
        'train_dataloader.batch_size': 8,
        'train_dataloader.num_workers': 12,
        'train_dataloader.dataset.size': (256, 256),
        'train_dataloader.dataset.num_frames': 24,
        'train_dataloader.dataset.num_points': 256,
        'train_dataloader.dataset.motion': 1.0,
        'train_cfg.max_iters': 100000,
        'train_cfg.val_interval': 5000,
        'param_scheduler.0.end': 1000,
        'param_scheduler.1.begin': 1000,
        'param_scheduler.1.end': 100000,
        'param_scheduler.1.T_max': 99000,
        'optim_wrapper.optimizer.lr': 5e-4,
    },
    # The weights in the box, stage 1: the same model and clips for longer, at a constant rate.
    boxed={
        'train_dataloader.dataset.num_frames': 12,
        'train_cfg.max_iters': 1400,
        'train_cfg.val_interval': 5000,
        'param_scheduler.1.eta_min': 1e-3,
        'default_hooks.checkpoint.interval': 200,
    },
    # Stage 2, with load_from=CHECKPOINT of stage 1: longer clips, larger frames, and the rate falls to nothing.
    boxed_finish={
        'train_dataloader.batch_size': 3,
        'train_dataloader.dataset.size': (128, 128),
        'train_dataloader.dataset.num_frames': 14,
        '+train_dataloader.dataset.seed': 2,
        'train_cfg.max_iters': 600,
        'train_cfg.val_interval': 5000,
        'param_scheduler.1.eta_min': 1e-5,
        'param_scheduler.1.end': 600,
        'param_scheduler.1.T_max': 550,
        'default_hooks.checkpoint.interval': 100,
    },
)
