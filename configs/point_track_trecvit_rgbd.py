# Evaluates point tracking on RGB-D recordings of static scenes: truth from depth and camera pose, no annotation.
#
#   tools/test.py configs/point_track_trecvit_rgbd.py boxed --cfg-options data_root=DIR
#   tools/test.py configs/point_track_trecvit_rgbd.py boxed --baseline lucas_kanade --cfg-options data_root=DIR
#
# DIR holds images/, depth/ (16-bit png, mm), poses.txt (camera to world) and K.txt, or folders that do. The model comes
# from the checkpoint. Only the camera moves in such video, and positions are good to a pixel or two: read it beside
# zero motion, not beside TAP-Vid.
# Hardware: CPU or one GPU, seconds. Metric: rgbd/first/256/delta_avg beside zero motion.

_base_ = ['./_base_/default_runtime.py']

data_root = 'data/rgbd'
query_mode = 'first'  # or 'strided'
resolution = (256, 256)  # height, width that frames are resized to; 'native' keeps the video's own
num_frames = 8  # frames per clip
frame_stride = 1  # every n-th frame; more motion
num_points = 128  # most points per clip
dataset_name = 'rgbd'  # first part of the metric keys

overrides = dict(
    data_root='test_dataloader.dataset.data_root',
    query_mode='test_dataloader.dataset.query_mode',
    resolution='test_dataloader.dataset.resolution',
    num_frames='test_dataloader.dataset.num_frames',
    frame_stride='test_dataloader.dataset.frame_stride',
    num_points='test_dataloader.dataset.num_points',
    dataset_name='test_evaluator.0.dataset_name',
)

model = None
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='RGBDPointsDataset',
        data_root='data/rgbd',
        query_mode='first',
        resolution=(256, 256),
        num_frames=8,
        frame_stride=1,
        num_points=128,
    ),
)
test_evaluator = [dict(type='TapVidMetric', dataset_name='rgbd', per_video=True)]
test_cfg = dict()
