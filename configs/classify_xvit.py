# Classification of motion with a small XViT, from scratch on procedural clips that no single frame tells apart:
# classes of direction, speed, sense of rotation and order of events.
#
#   python tools/train.py configs/classify_xvit.py
#
# Hardware and time: two CPU cores, about 15 minutes: estimated from single steps, a whole run has not been made yet.
# Expected: not measured yet. Wanted is 0.25 of top-1 on held-out clips, three times chance.

_base_ = ['_base_/default_runtime.py', '_base_/motion_classes.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', pad_multiple=8, value_range='signed'),
    backbone=dict(
        type='XViT',
        embed_dim=128,
        depth=4,
        num_heads=4,
        mlp_dim=256,
        patch_size=8,
        image_size=32,
        num_segments=8,
        shift_div=4,
    ),
    heads=dict(
        classification=dict(
            type='TemporalAggregationHead', num_classes=12, classes={{_base_.motion_classes}}, num_heads=4, dropout=0.0
        )
    ),
)

train_cfg = dict(type='FastResumeIterLoop', max_iters=1800, val_interval=1800)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=1800, T_max=1750),
]
