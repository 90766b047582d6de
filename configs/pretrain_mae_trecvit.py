# Masked pre-training of the small TRecViT on procedural video: most patches are hidden, a causal decoder paints them.
#
#   python tools/train.py configs/pretrain_mae_trecvit.py
#
# Then any recipe on this backbone starts from its weights with one line:
#
#  tools/train.py configs/vos_trecvit.py --cfg-options +pretrained.backbone=work_dirs/pretrain_mae_trecvit/iter_640.pth
#
# Hardware and time: two CPU cores, 14 minutes.
# Expected: mse of hidden patches 0.860 on held-out clips, where a patch of the right mean has 0.966, the nearest seen
#   patch 1.505, and what the place showed a frame before, which the model is not shown, 0.763; docs/experiments.md. It
#   paints colours and shading that go on from the seen patches, no texture: see reconstruction.png in the work folder.

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
        reconstruction=dict(
            type='MaskedAutoencoderHead',
            masking='tube',
            # The paper hides 0.9 of 14 x 14 patches; of the 6 x 6 here that would leave four.
            ratio=0.75,
            decoder_dim=128,
            decoder_depth=2,
            decoder_heads=4,
            decoder_mlp=256,
            neighbourhood=3,
            # A hundredth of the range: less is noise and compression, and no one could paint that.
            target_eps=1e-4,
        )
    ),
)

# Many clips a step, and short ones: the frames of a clip show much the same through the same tube, and with four clips
# a step nothing is learnt. Eight clips are cut out of each rendered video, whose making costs more than the step.
train_dataloader = dict(
    batch_size=24,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='RepeatedClipsDataset',
        times=8,
        dataset=dict(
            type='SyntheticVideoDataset', length=100000, size=(160, 160), num_frames=8, num_points=1, split='train'
        ),
        pipeline=[
            dict(type='SampleFrames', num_frames=4),
            dict(type='CropTo', size=(96, 96)),
            dict(type='HorizontalFlip'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(type='SyntheticVideoDataset', length=32, size=(96, 96), num_frames=8, num_points=1, split='val'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ReconstructionMetric', dataset_name='synthetic_masked')
test_evaluator = val_evaluator

train_cfg = dict(type='FastResumeIterLoop', max_iters=640, val_interval=320)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='AdamW', fused=True, lr=1e-3, weight_decay=0.05, betas=(0.9, 0.95)),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min=2e-5, by_epoch=False, begin=50, end=640, T_max=590),
]

default_hooks = dict(
    curves=dict(type='CurvesHook', metrics=('mse',)), progress=dict(type='ProgressHook', metrics=('masked/mse',))
)
custom_hooks = [dict(type='ReconstructionHook')]
