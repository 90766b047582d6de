# Classification of motion with a small Video Mobile-Former, from scratch on procedural clips that no single frame tells
# apart: twelve classes of direction, speed, sense of rotation and order of events.
#
#   python tools/train.py configs/classify_video_mobile_former.py
#
# Hardware and time: two CPU cores, within 15 minutes (26 on one core, which two other programs shared).
# Expected: 0.67 of top-1 on held-out clips, chance 0.083. Directions and speeds are told apart (0.82 to 0.95), the
#   sense of rotation (0.27 and 0.39) and the order of events (0.15 and 0.26) much less.

_base_ = ['_base_/default_runtime.py', '_base_/motion_classes.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', input_size=(32, 32), value_range='signed'),
    # Frame differences: from pixels alone, none of the small models here leaves chance in this time.
    backbone=dict(
        type='RGBDifference',
        backbone=dict(
            type='VideoMobileFormer',
            # Filters over five frames at the start see what moves where; later ones may look at one frame alone.
            stem_channels=24,
            stem_temporal_kernel=5,
            temporal_kernel=(3, 3, 1),
            num_tokens=6,
            token_dim=64,
            # kind, expansion, channels, stride, second expansion: few blocks, and strides 2 to 8, for frames of 32 px
            rows=(('first', 2, 32, 2, 0), ('dna', 2, 32, 1, 0), ('lite', 2, 64, 2, 2), ('dna', 2, 64, 1, 0)),
        ),
    ),
    heads=dict(
        classification=dict(
            type='MobileFormerClassifier', num_classes=12, classes={{_base_.motion_classes}}, token_dim=64, rep_size=256
        )
    ),
)

train_cfg = dict(type='FastResumeIterLoop', max_iters=600, val_interval=600)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=600, T_max=550),
]
