"""Package definition. The recipes of ``configs/`` travel inside the wheel as ``trecvit_dense/configs``."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'trecvit_dense/__init__.py').read_text()).group(1)

CONFIG_PACKAGES = ['trecvit_dense.configs', 'trecvit_dense.configs._base_']
# torch for CPUs brings no Triton; its interpreter tests the kernels without a GPU.
TRITON = 'triton; platform_system == "Linux" and platform_machine == "x86_64"'
TEST = ['pytest>=8', 'pytest-xdist', 'pytest-timeout', 'hypothesis', 'ruff', 'mypy', TRITON]

setup(
    name='trecvit-dense',
    version=VERSION,
    description='Dense video perception (point tracking, segmentation, depth) on recurrent video transformers',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['trecvit_dense', 'trecvit_dense.*']) + CONFIG_PACKAGES,
    package_dir={'trecvit_dense.configs': 'configs', 'trecvit_dense.configs._base_': 'configs/_base_'},
    package_data={
        'trecvit_dense': ['weights/*.safetensors', 'weights/*.json', 'native/*.c'],
        'trecvit_dense.configs': ['*.py'],
        'trecvit_dense.configs._base_': ['*.py'],
    },
    install_requires=[
        'torch>=2.6',
        'mmengine>=0.10.7,<0.11',
        'mmcv-lite>=2.2,<2.3',
        'opencv-python',
        'pycocotools',
        'scipy',
        'einops',
        'av',
        'safetensors',
        'numpy',
        'pillow',
        'matplotlib',
    ],
    extras_require={'test': TEST},
    entry_points={'console_scripts': ['trecvit = trecvit_dense.cli:entry']},
)
