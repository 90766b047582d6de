# Points, masks and depth from one backbone pass and one state: three heads on a small TRecViT, trained together.
#
#   python tools/train.py configs/multitask_trecvit.py
#   python tools/demo.py all VIDEO --grid 12 --box 120,80,320,240 --out all.mp4
#
# Hardware and time: one CPU core with bf16, 28 minutes. Metric: AJ 0.30, J&F 0.56, AbsRel 0.295 where a constant depth
# has 0.327; docs/experiments.md has the three models with one head each beside it. Flat layers teach points and masks,
# ray-cast scenes also depth, which needs more steps than these.

_base_ = ['_base_/default_runtime.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(
        type='VideoPreprocessor', max_side=384, alone=dict(depth=224), beside=dict(depth=320), pad_multiple=16
    ),
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
        points=dict(type='CostVolumePointHead', channels=48, hidden_dim=128, iterations=2),
        masks=dict(type='ObjectTokenHead', channels=48, hidden_dim=32, carry=dict(levels=(0, 1, 2), num_context=5)),
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
        ),
    ),
)

train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='MixtureDataset',
        length=100000,
        weights=(0.6, 0.4),
        datasets=[
            dict(
                type='SyntheticSceneDataset',
                length=100000,
                size=(96, 128),
                num_frames=8,
                num_points=48,
                num_targets=(1, 3),
                travel=0.7,
                reference_frames=12,  # at the usual pace of short clips points would travel too far to be followed
                split='train',
            ),
            dict(
                type='SyntheticVideoDataset',
                length=100000,
                size=(96, 128),
                num_frames=8,
                num_points=48,
                num_targets=(1, 3),
                motion=0.7,
                shared_surfaces=0.5,
                reference_frames=16,
                split='train',
                pipeline=[dict(type='DropAnnotations', kinds=('depth',))],
            ),
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
        type='SyntheticSceneDataset',
        length=16,
        size=(96, 128),
        num_frames=24,
        num_points=48,
        num_targets=(1, 3),
        split='val',
    ),
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='TapVidMetric', dataset_name='synthetic_scenes'),
    dict(type='MaskMetric', dataset_name='synthetic_scenes'),
    dict(type='DepthMetric', dataset_name='synthetic_scenes', alignment='scale_shift_disparity_clip', cap_m=80.0),
]
test_evaluator = val_evaluator

train_cfg = dict(type='FastResumeIterLoop', max_iters=900, val_interval=900)
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
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=900, T_max=850),
]

# The same model, clips and steps with one head alone: what does sharing cost?  --cfg-options preset=NAME
presets = dict(
    points={
        '+model.freeze': ('masks', 'depth'),
        'val_evaluator': [dict(type='TapVidMetric', dataset_name='synthetic_scenes')],
        'test_evaluator': [dict(type='TapVidMetric', dataset_name='synthetic_scenes')],
    },
    masks={
        '+model.freeze': ('points', 'depth'),
        'val_evaluator': [dict(type='MaskMetric', dataset_name='synthetic_scenes')],
        'test_evaluator': [dict(type='MaskMetric', dataset_name='synthetic_scenes')],
    },
    depth={
        '+model.freeze': ('points', 'masks'),
        'val_evaluator': [dict(type='DepthMetric', dataset_name='synthetic_scenes', cap_m=80.0)],
        'test_evaluator': [dict(type='DepthMetric', dataset_name='synthetic_scenes', cap_m=80.0)],
    },
)
