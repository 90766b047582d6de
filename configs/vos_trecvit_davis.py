# Evaluates object segmentation on any folder in the layout of DAVIS 2016 or 2017: no training here.
#
#   tools/test.py configs/vos_trecvit_davis.py boxed --cfg-options data_root=DIR head=object split=val
#   tools/test.py configs/vos_trecvit_davis.py boxed --cfg-options data_root=DIR head=propagation
#
# DIR holds JPEGImages and Annotations (palette, grey, or 0/255 PNGs), and ImageSets unless every sequence is meant. The
# model comes from the checkpoint. Sequences and objects are those of the official evaluator; first and last frames do
# not count. head=propagation needs no training: it carries masks along by the similarity of the backbone's features.
# Hardware: CPU or one GPU, one video in memory at a time. Metric: davis/J&F beside copying the first mask.

_base_ = ['./_base_/default_runtime.py']

data_root = 'data/davis'
split = 'val'  # a list of ImageSets
head = 'object'  # or 'propagation'
version = 'auto'  # '2016' merges all objects to one, '2017' takes ids as they are
resolution = None  # '480p' if there, else what is
sequences = None  # only these: a list of names, or a text file
max_side = None  # frames are reduced to this before the model sees them; masks are compared at their own size
dataset_name = 'davis'  # first part of the metric keys

overrides = dict(
    data_root='test_dataloader.dataset.data_root',
    split='test_dataloader.dataset.split',
    version='test_dataloader.dataset.version',
    resolution='test_dataloader.dataset.resolution',
    sequences='test_dataloader.dataset.sequences',
    max_side='test_dataloader.dataset.max_side',
    dataset_name='test_evaluator.0.dataset_name',
    head='mask_head',
)

model = None
mask_head = 'object'
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='DAVISDataset',
        data_root='data/davis',
        split='val',
        version='auto',
        resolution=None,
        sequences=None,
        max_side=None,
    ),
)
test_evaluator = [dict(type='MaskMetric', dataset_name='davis', per_sequence=True)]
test_cfg = dict()
