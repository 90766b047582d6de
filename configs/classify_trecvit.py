# Classification of motion with a small TRecViT, from scratch on procedural clips that no single frame tells apart:
# twelve classes of direction, speed, sense of rotation and order of events.
#
#   python tools/train.py configs/classify_trecvit.py
#
# Hardware and time: two CPU cores, about 15 minutes: estimated from single steps, a whole run has not been made yet.
# Expected: not measured yet. Wanted is 0.25 of top-1 on held-out clips, three times chance.

_base_ = ['_base_/default_runtime.py', '_base_/motion_classes.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', pad_multiple=8, value_range='signed'),
    backbone=dict(
        type='TRecViT',
        embed_dim=128,
        depth=3,
        num_heads=4,
        mlp_dim=256,
        lru_width=128,
        # Even fast things stay in a patch for two frames: products of its past and its present tell where they go.
        patch_size=8,
        image_size=32,
    ),
    heads=dict(
        classification=dict(
            type='ClassificationHead', num_classes=12, classes={{_base_.motion_classes}}, rep_size=256, pool='gap'
        )
    ),
)

# The last evaluation is made twice: as it is, and with all memory cleared before every frame.
reset_state = 'all'

train_cfg = dict(type='FastResumeIterLoop', max_iters=1500, val_interval=1500)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=1500, T_max=1450),
]
