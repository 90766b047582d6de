# The embedded data of classification, its metric and its optimiser, for small models that start from scratch: clips of
# eight frames of 32 px, twelve classes of direction, speed, sense of rotation and order of events. Clean renders: no
# change of light, no shake, no clutter; with them the same models need about twice the time.

motion_classes = (
    'left/slow',
    'left/fast',
    'right/slow',
    'right/fast',
    'up/slow',
    'up/fast',
    'down/slow',
    'down/fast',
    'turn/counterclockwise',
    'turn/clockwise',
    'order/upright-sideways',
    'order/sideways-upright',
)

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DrawSampler'),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticMotionClassesDataset',
        length=100000,
        size=(32, 32),
        num_frames=8,
        split='train',
        photometric=0.0,
        shake=0.0,
        clutter=(0, 0),
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='SyntheticMotionClassesDataset',
        length=600,
        size=(32, 32),
        num_frames=8,
        split='val',
        photometric=0.0,
        shake=0.0,
        clutter=(0, 0),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ClassificationMetric', dataset_name='motion', per_class=True)
test_evaluator = val_evaluator

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='auto',
    optimizer=dict(type='AdamW', fused=True, lr=2e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=1.0),
)
