# What every recipe shares: hooks, logging, seeds. A recipe says the rest itself.

default_scope = 'trecvit_dense'
runner_type = 'TrecvitRunner'

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
randomness = dict(seed=0)
log_level = 'INFO'
log_processor = dict(by_epoch=False)

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    iteration_seed=dict(type='IterationSeedHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=2),
    plain_checkpoint=dict(type='PlainCheckpointHook'),
    curves=dict(type='CurvesHook'),
    progress=dict(type='ProgressHook'),
)
custom_hooks = []
load_from = None
resume = False
