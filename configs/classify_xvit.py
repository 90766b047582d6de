# Classification of motion with a small XViT, from scratch on procedural clips that no single frame tells apart:
# classes of direction, speed, sense of rotation and order of events.
#
#   python tools/train.py configs/classify_xvit.py
#
# Hardware and time: two CPU cores, within 10 minutes (that long on one core, which other work shared).
# Expected: 0.39 of top-1 on held-out clips, chance 0.083. Directions and speeds are told apart (0.46 to 0.63), the
#   sense of rotation and the order of events hardly are (0.04 to 0.15).

_base_ = ['_base_/default_runtime.py', '_base_/motion_classes.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', input_size=(32, 32), value_range='signed'),
    # Frame differences: from pixels alone, none of the small models here leaves chance in this time.
    backbone=dict(
        type='RGBDifference',
        backbone=dict(
            type='XViT',
            embed_dim=96,
            depth=2,
            num_heads=4,
            mlp_dim=192,
            patch_size=8,
            image_size=32,
            num_segments=8,
            shift_div=3,
        ),
    ),
    heads=dict(
        classification=dict(
            type='TemporalAggregationHead',
            num_classes=12,
            classes={{_base_.motion_classes}},
            # The mean over frames: the head's attention leaves chance four times later.
            consensus='average',
            pool='gap',
            dropout=0.0,
        )
    ),
    # The backbone's own start is for weights of an image model: a tenth of this at so small a width.
    init_cfg=dict(type='Xavier', layer='Linear', distribution='uniform'),
)

train_cfg = dict(type='FastResumeIterLoop', max_iters=1200, val_interval=1200)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=1200, T_max=1150),
]
