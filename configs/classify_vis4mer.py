# Classification of motion with a small ViS4mer, from scratch on procedural clips that no single frame tells apart:
# twelve classes of direction, speed, sense of rotation and order of events. The encoder, two blocks of TRecViT, is
# trained along; the paper's is frozen and large, see configs/classify_vis4mer_lvu.py.
#
#   python tools/train.py configs/classify_vis4mer.py
#
# Hardware and time: two CPU cores, within 15 minutes (14, while other work shared them).
# Expected: 0.36 of top-1 on held-out clips, chance 0.083; 0.08 with the memory cleared before every frame. Speed and
#   sense are told apart, left is taken for up and right for down; turns and the order of events hardly are (0.02 to
#   0.39).

_base_ = ['_base_/default_runtime.py', '_base_/motion_classes.py']

model = dict(
    type='VideoPerceiver',
    data_preprocessor=dict(type='VideoPreprocessor', input_size=(32, 32), value_range='signed'),
    # Frame differences: from pixels alone, none of the small models here leaves chance in this time.
    backbone=dict(
        type='RGBDifference',
        backbone=dict(
            type='ViS4mer',
            encoder=dict(
                type='TRecViT',
                embed_dim=96,
                depth=2,
                num_heads=4,
                mlp_dim=192,
                lru_width=96,
                patch_size=8,
                image_size=32,
            ),
            freeze_encoder=False,
            l_max=8 * 16,  # 8 frames of 4 x 4 patches
            dropout=0.0,  # clips never come twice
        ),
    ),
    heads=dict(
        classification=dict(
            type='ClassificationHead',
            num_classes=12,
            classes={{_base_.motion_classes}},
            pool='last',
            rep_size=None,
            token_dim=12,
        )
    ),
    # From scratch, time has to be heard from the first step on (ten times the usual), and what comes out of three
    # linear layers with a GELU behind each has to be heard at all.
    init_cfg=[
        dict(type='Normal', layer='CausalConv', std=0.5),
        dict(type='Xavier', layer='Linear', distribution='uniform'),
    ],
)

# The last evaluation is made twice: as it is, and with all memory cleared before every frame.
reset_state = 'all'

train_cfg = dict(type='FastResumeIterLoop', max_iters=1500, val_interval=1500)

# No decay of these, as the authors (docs/vis4mer.md).
optim_wrapper = dict(
    optimizer=dict(lr=3e-3),
    paramwise_cfg=dict(custom_keys={name: dict(decay_mult=0.0) for name in ('kernel.log_dt', 'kernel.w', 'kernel.B')}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=1500, T_max=1450),
]
