# Evaluates any TAP-Vid pickle (DAVIS, RGB-Stacking, Kinetics, RoboTAP, or your own): no training here.
#
#   tools/test.py configs/point_track_trecvit_tapvid.py boxed --cfg-options ann_file=FILE query_mode=first
#
# The model comes from the checkpoint. query_mode=strided also runs each video backwards. --reset-state adds the rows
# that say what the memory is worth. Errors are measured on 256 x 256, whatever resolution the frames are read at; a
# resolution other than 256 x 256 is another setting, not the benchmark's: report it apart.
# Hardware: CPU or one GPU, one video in memory at a time. Metric: tapvid/first/256/AJ beside zero motion.

_base_ = ['./_base_/default_runtime.py']

ann_file = 'data/tapvid_davis/tapvid_davis.pkl'  # .pkl, folder of .pkl shards, or .csv with videos beside it
query_mode = 'first'  # or 'strided'
resolution = (256, 256)  # height, width that frames are resized to; 'native' keeps the video's own
dataset_name = 'tapvid'  # first part of the metric keys
max_videos = None  # evaluate only the first so many

overrides = dict(
    ann_file='test_dataloader.dataset.ann_file',
    query_mode='test_dataloader.dataset.query_mode',
    resolution='test_dataloader.dataset.resolution',
    dataset_name='test_evaluator.0.dataset_name',
    max_videos='test_dataloader.dataset.max_videos',
)

model = None
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='TapVidDataset',
        ann_file='data/tapvid_davis/tapvid_davis.pkl',
        query_mode='first',
        resolution=(256, 256),
        max_videos=None,
    ),
)
test_evaluator = [dict(type='TapVidMetric', dataset_name='tapvid', per_video=True)]
test_cfg = dict()
