# Evaluates depth on RGB-D recordings: somebody's own folder with measured depth and, for what time is worth, poses.
#
#   tools/test.py configs/depth_trecvit_rgbd.py boxed --cfg-options data_root=DIR
#   tools/test.py configs/depth_trecvit_rgbd.py boxed --cfg-options data_root=DIR alignment=scale_depth_clip cap_m=5
#
# DIR holds images/, depth/ (16-bit png, mm), poses.txt (camera to world) and K.txt, or folders that do; a whole
# recording is one video. The model comes from the checkpoint. Every number stands beside the best constant depth. TAE
# and flicker need the poses.
# Hardware: CPU or one GPU, seconds. Metric: rgbd/scale_shift_disparity_clip/AbsRel beside a constant depth.

_base_ = ['./_base_/default_runtime.py']

data_root = 'data/rgbd'
depth_scale = 1000.0  # units of the depth files per metre
frame_stride = 1  # every n-th frame; more motion
num_frames = None  # at most so many frames of a recording; None: all
alignment = 'scale_shift_disparity_clip'  # or 'none', 'scale_depth_frame', ...: what is fitted, to what, over what
cap_m = 10.0  # truth beyond this does not count, as for ScanNet and Bonn; None: all of it does
max_side = None  # larger frames are reduced to this before the model sees them; None: as the model was made
dataset_name = 'rgbd'  # first part of the metric keys

overrides = dict(
    data_root='test_dataloader.dataset.data_root',
    depth_scale='test_dataloader.dataset.depth_scale',
    frame_stride='test_dataloader.dataset.frame_step',
    num_frames='test_dataloader.dataset.max_frames',
    alignment='test_evaluator.0.alignment',
    cap_m=['test_dataloader.dataset.max_depth_m', 'test_evaluator.0.cap_m'],
    max_side='model_overrides.data_preprocessor.alone.depth',
    dataset_name='test_evaluator.0.dataset_name',
)

model = None
model_overrides = dict()
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='RGBDDepthDataset',
        data_root='data/rgbd',
        depth_scale=1000.0,
        frame_step=1,
        max_frames=None,
        max_depth_m=10.0,
    ),
)
test_evaluator = [dict(type='DepthMetric', dataset_name='rgbd', alignment='scale_shift_disparity_clip', cap_m=10.0)]
test_cfg = dict()
