# Classification of motion with a small TRecViT, from scratch on procedural clips that no single frame tells apart:
# twelve classes of direction, speed, sense of rotation and order of events.
#
#   python tools/train.py configs/classify_trecvit.py
#
# Hardware and time: two CPU cores, within 10 minutes (that long on one core, which other work shared).
# Expected: 0.46 of top-1 on held-out clips, chance 0.083; 0.09 with the memory cleared before every frame. Directions
#   and speeds are told apart (0.6 to 0.7), the sense of rotation and the order of events hardly are (0 to 0.13).

_base_ = ['_base_/default_runtime.py', '_base_/motion_classes.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', input_size=(32, 32), value_range='signed'),
    # Frame differences: from pixels alone, none of the small models here leaves chance in this time.
    backbone=dict(
        type='RGBDifference',
        backbone=dict(
            type='TRecViT',
            embed_dim=96,
            depth=2,
            num_heads=4,
            mlp_dim=192,
            lru_width=96,
            # Even fast things stay in a patch for two frames: products of its past and its present tell where they go.
            patch_size=8,
            image_size=32,
        ),
    ),
    heads=dict(
        classification=dict(
            type='ClassificationHead', num_classes=12, classes={{_base_.motion_classes}}, rep_size=128, pool='gap'
        )
    ),
    # Ten times the usual: from scratch, time has to be heard from the first step on.
    init_cfg=dict(type='Normal', layer='CausalConv', std=0.5),
)

# The last evaluation is made twice: as it is, and with all memory cleared before every frame.
reset_state = 'all'

train_cfg = dict(type='FastResumeIterLoop', max_iters=500, val_interval=500)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=500, T_max=450),
]
