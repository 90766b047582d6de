"""The corner of a room, seen by a moving camera, in the layouts of the public depth data sets.

Files are written by hand from the descriptions of the data sets; nothing of the library takes part.
"""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

WALLS = np.array([2.0, 1.2, 5.0])  # right wall x = 2, floor y = 1.2, back wall z = 5; metres
SMALL = (24, 32)


def small_camera(size: tuple[int, int] = SMALL) -> np.ndarray:
    return np.array([[0.7 * size[1], 0, 0.48 * size[1]], [0, 0.72 * size[1], 0.45 * size[0]], [0, 0, 1]])


def motion(frames: int = 3) -> np.ndarray:
    """``(T, 4, 4)`` camera to world, x right, y down, z forward: a walk with a turn of the head."""
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for t in range(frames):
        poses[t, :3, :3] = Rotation.from_euler('yxz', [0.10 * t + 0.1, 0.05 * t, 0.04 * t]).as_matrix()
        poses[t, :3, 3] = 0.15 * t, -0.1 * t, 0.3 * t - 0.2
    return poses


def room_depth(matrix: np.ndarray, pose: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` metres along the optical axis; pixel (row i, column j) looks through ``(j, i)``."""
    columns, rows = np.meshgrid(np.arange(size[1]), np.arange(size[0]))
    rays = np.stack([columns, rows, np.ones(size)], axis=-1) @ np.linalg.inv(matrix).T
    along = rays @ pose[:3, :3].T
    with np.errstate(divide='ignore'):
        distance = (WALLS - pose[:3, 3]) / along
    return np.where(distance > 0, distance, np.inf).min(axis=-1)


def off_the_walls(depth_m: np.ndarray, matrix: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """``(H, W)`` distance of lifted pixels from the nearest wall, metres."""
    columns, rows = np.meshgrid(np.arange(depth_m.shape[1]), np.arange(depth_m.shape[0]))
    rays = np.stack([columns, rows, np.ones(depth_m.shape)], axis=-1) @ np.linalg.inv(matrix).T
    world = (rays * depth_m[..., None]) @ pose[:3, :3].T + pose[:3, 3]
    return np.abs(world - WALLS).min(axis=-1)


def save_image(path: Path, size: tuple[int, int] = SMALL, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(picture).resize(size[::-1], Image.Resampling.NEAREST).save(path)


def save_png16(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path, compress_level=1)


def rounded(depth_m: np.ndarray, units: float) -> np.ndarray:
    """Whole numbers of 16 bits; a pixel without value in the corner."""
    values = np.rint(depth_m * units)
    values[0, 0] = 0
    return values.astype(np.uint16)


def write_rgbd(folder: Path, *, depth_size: tuple[int, int] = SMALL, npy: bool = False) -> Path:
    for t, pose in enumerate(motion()):
        save_image(folder / f'images/{t:03d}.png', seed=t)
        scale = np.diag([depth_size[1] / SMALL[1], depth_size[0] / SMALL[0], 1])
        depth = room_depth(scale @ small_camera(), pose, depth_size)
        if npy:
            (folder / 'depth').mkdir(parents=True, exist_ok=True)
            np.save(folder / f'depth/{t:03d}.npy', depth.astype(np.float32))
        else:
            save_png16(folder / f'depth/{t:03d}.png', rounded(depth, 1000))
    np.savetxt(folder / 'K.txt', small_camera())
    np.savetxt(folder / 'poses.txt', motion().reshape(-1, 16))
    return folder


def write_scannet(root: Path, *, lost: int | None = None, frames: int = 3) -> Path:
    scene = root / 'scans/scene0707_00'
    matrix = np.eye(4)
    matrix[:3, :3] = small_camera()
    (scene / 'intrinsic').mkdir(parents=True)
    (scene / 'pose').mkdir()
    np.savetxt(scene / 'intrinsic/intrinsic_depth.txt', matrix)
    for t, pose in enumerate(motion(frames)):
        save_image(scene / f'color/{t}.jpg', (48, 64), seed=t)
        save_png16(scene / f'depth/{t}.png', rounded(room_depth(small_camera(), pose, SMALL), 1000))
        np.savetxt(scene / f'pose/{t}.txt', np.full((4, 4), -np.inf) if t == lost else pose)
    return root


def write_sintel(root: Path) -> Path:
    height, width = SMALL
    for t, pose in enumerate(motion(), start=1):
        save_image(root / f'training/final/alley_1/frame_{t:04d}.png', seed=t)
        depth = room_depth(small_camera(), pose, SMALL)
        depth[0, 0] = 1e6  # sky
        file = root / f'training/depth/alley_1/frame_{t:04d}.dpt'
        file.parent.mkdir(parents=True, exist_ok=True)
        header = struct.pack('<f', 202021.25) + struct.pack('<ii', width, height)
        file.write_bytes(header + struct.pack(f'<{height * width}f', *depth.ravel()))
        outside = np.linalg.inv(pose)[:3]
        file = root / f'training/camdata_left/alley_1/frame_{t:04d}.cam'
        file.parent.mkdir(parents=True, exist_ok=True)
        numbers = [*small_camera().ravel(), *outside.ravel()]
        file.write_bytes(struct.pack('<f', 202021.25) + struct.pack('<21d', *numbers))
    return root


def write_tum(root: Path, name: str, matrix: np.ndarray, *, lists: bool = True) -> Path:
    """Colour at 1, 1.033, ...; depth 4 ms later, and one map in between; poses at 100 Hz, 1 ms before colour."""
    folder, size = root / name, (480, 640)
    rows = []
    for t, pose in enumerate(motion()):
        time = 1.0 + t / 30
        save_image(folder / f'rgb/{time:.6f}.png', size, seed=t)
        save_png16(folder / f'depth/{time + 0.004:.6f}.png', rounded(room_depth(matrix, pose, size), 5000))
        quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat()  # x, y, z, w
        rows.append([time - 0.001, *pose[:3, 3], *(2 * quaternion)])
    save_image(folder / 'rgb/9.000000.png', size)  # no depth near it
    save_png16(folder / 'depth/1.018000.png', np.full(size, 5))  # a map that is nobody's nearest
    if lists:
        for kind in ('rgb', 'depth'):
            names = sorted(path.name for path in (folder / kind).iterdir())
            lines = [f'{path[:-4]} {kind}/{path}' for path in names]
            (folder / f'{kind}.txt').write_text('# color images\n# timestamp filename\n' + '\n'.join(lines) + '\n')
    (folder / 'groundtruth.txt').write_text(
        '# timestamp tx ty tz qx qy qz qw\n' + '\n'.join(' '.join(f'{value:.9f}' for value in row) for row in rows)
    )
    return root


def write_tartanair(root: Path) -> Path:
    """Camera and world in x forward, y right, z down."""
    folder, size = root / 'hospital/Easy/P003', (480, 640)
    matrix, rows = np.array([[320.0, 0, 320], [0, 320, 240], [0, 0, 1]]), []
    for t, pose in enumerate(motion()):
        save_image(folder / f'image_left/{t:06d}_left.png', size, seed=t)
        depth = room_depth(matrix, pose, size).astype(np.float32)
        depth[0, 0] = 10000  # sky
        (folder / 'depth_left').mkdir(exist_ok=True)
        np.save(folder / f'depth_left/{t:06d}_left_depth.npy', depth)
        x, y, z = pose[:3, 3]
        forward_right_down = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
        turn = forward_right_down @ pose[:3, :3] @ forward_right_down.T
        rows.append([z, x, y, *Rotation.from_matrix(turn).as_quat()])
    np.savetxt(folder / 'pose_left.txt', rows)
    return root


def write_virtual_kitti(root: Path) -> Path:
    folder, matrix = root / 'Scene01/clone', small_camera()
    inside, outside = ['frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]'], ['frame cameraID r1,1 r1,2 r1,3 t1 ... 1']
    for t, pose in enumerate(motion()):
        save_image(folder / f'frames/rgb/Camera_0/rgb_{t:05d}.jpg', seed=t)
        values = np.rint(room_depth(matrix, pose, SMALL) * 100)
        values[0, 0] = 65535  # sky
        save_png16(folder / f'frames/depth/Camera_0/depth_{t:05d}.png', values)
        for camera in (0, 1):
            wrong = 5 * camera  # the right camera's lines must not be taken
            numbers = matrix[[0, 1, 0, 1], [0, 1, 2, 2]] + wrong
            inside.append(f'{t} {camera} ' + ' '.join(f'{value:.9f}' for value in numbers))
            numbers = np.linalg.inv(pose).ravel() + wrong
            outside.append(f'{t} {camera} ' + ' '.join(f'{value:.9f}' for value in numbers))
    (folder / 'intrinsic.txt').write_text('\n'.join(inside) + '\n')
    (folder / 'extrinsic.txt').write_text('\n'.join(outside) + '\n')
    return root


def write_point_odyssey(root: Path) -> Path:
    folder, matrix = root / 'val/ani', small_camera()
    for t, pose in enumerate(motion()):
        save_image(folder / f'rgbs/rgb_{t:05d}.jpg', seed=t)
        save_png16(folder / f'depths/depth_{t:05d}.png', rounded(room_depth(matrix, pose, SMALL), 65535 / 1000))
    np.savez(
        folder / 'anno.npz',
        trajs_2d=np.zeros((3, 2, 2), np.float16),
        intrinsics=np.tile(matrix, (3, 1, 1)).astype(np.float16),
        extrinsics=np.linalg.inv(motion()).astype(np.float16),
    )
    return root


def write_dynamic_replica(root: Path, kind: str = 'ndc_isotropic') -> Path:
    """PyTorch3D: row vectors, x left, y up; focal length and centre in halves of the shorter side, or of each side."""
    height, width = SMALL
    matrix, entries = small_camera(), []
    half = np.array([width / 2, height / 2])
    unit = np.full(2, min(half)) if kind == 'ndc_isotropic' else half
    for t, pose in enumerate(motion()):
        outside = np.linalg.inv(pose)
        mirrored = np.diag([-1.0, -1, 1]) @ outside[:3]
        for camera in ('right', 'left'):
            save_image(root / f'valid/abc_{camera}/images/{t:04d}.png', seed=t)
            depth = room_depth(matrix, pose, SMALL).astype(np.float16)
            depth[0, 0] = np.inf
            save_png16(root / f'valid/abc_{camera}/depths/{t:04d}.png', depth.view(np.uint16))
            entries.append(
                dict(
                    sequence_name='abc',
                    frame_number=t,
                    camera_name=camera,
                    image=dict(path=f'abc_{camera}/images/{t:04d}.png', size=[height, width]),
                    depth=dict(path=f'abc_{camera}/depths/{t:04d}.png'),
                    viewpoint=dict(
                        R=mirrored[:, :3].T.tolist(),
                        T=mirrored[:, 3].tolist(),
                        focal_length=(matrix[[0, 1], [0, 1]] / unit).tolist(),
                        principal_point=((half - matrix[:2, 2]) / unit).tolist(),
                        intrinsics_format=kind,
                    ),
                )
            )
    with gzip.open(root / 'valid/frame_annotations_valid.jgz', 'wt') as file:
        json.dump(entries[::-1], file)
    return root


def write_kitti(root: Path, *, frames: int = 3) -> np.ndarray:
    """Raw drive, annotated depth that starts at frame 5, laser scans, and where the car was.

    Returns the poses of camera 2 relative to its first one, ``(T, 4, 4)``.
    """
    date, drive = '2011_09_26', '2011_09_26_drive_0002_sync'
    matrix = small_camera()
    to_camera = np.eye(4)  # laser: x forward, y left, z up
    to_camera[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]
    to_camera[:3, 3] = 0.01, -0.07, -0.27
    to_laser = np.eye(4)
    to_laser[:3, :3] = Rotation.from_euler('z', 0.02).as_matrix()
    to_laser[:3, 3] = -0.8, 0.3, -0.8
    rectify = Rotation.from_euler('y', 0.01).as_matrix()
    aside = np.array([0.06, -0.001, 0.003])  # camera 2 lies beside camera 0
    text = {
        'cam_to_cam': {
            'calib_time': '09-Jan-2012 13:57:47',
            'S_rect_02': _words([SMALL[1], SMALL[0]]),
            'R_rect_00': _words(rectify.ravel()),
            'P_rect_02': _words(np.column_stack([matrix, matrix @ aside]).ravel()),
        },
        'velo_to_cam': {'R': _words(to_camera[:3, :3].ravel()), 'T': _words(to_camera[:3, 3])},
        'imu_to_velo': {'R': _words(to_laser[:3, :3].ravel()), 'T': _words(to_laser[:3, 3])},
    }
    raw = root / 'raw' / date
    for t in range(frames + 10):
        save_image(raw / drive / f'image_02/data/{t:010d}.png', seed=t)
    for name, lines in text.items():
        (raw / f'calib_{name}.txt').write_text(''.join(f'{key}: {value}\n' for key, value in lines.items()))
    rectified, shifted = np.eye(4), np.eye(4)
    rectified[:3, :3], shifted[:3, 3] = rectify, aside
    from_imu = shifted @ rectified @ to_camera @ to_laser
    cameras = []
    for t in range(frames + 10):
        yaw, pitch, roll = 0.05 * t, 0.01 * t, -0.02 * t
        car = np.eye(4)
        car[:3, :3] = Rotation.from_euler('ZYX', [yaw, pitch, roll]).as_matrix()
        car[:3, 3] = 0.04 * t, 0.02 * t, 0.01 * t
        (raw / drive / 'oxts/data').mkdir(parents=True, exist_ok=True)
        place = _latitude_longitude(car[:3, 3])
        (raw / drive / f'oxts/data/{t:010d}.txt').write_text(_words([*place, 100 + 0.01 * t, roll, pitch, yaw, 1, 2]))
        cameras.append(car @ np.linalg.inv(from_imu))
    cameras = np.stack(cameras)[5 : 5 + frames]
    cameras = np.linalg.inv(cameras[0]) @ cameras
    for t, pose in enumerate(cameras, start=5):
        path = root / f'depth/val/{drive}/proj_depth/groundtruth/image_02/{t:010d}.png'
        depth = room_depth(matrix, pose, SMALL)
        save_png16(path, rounded(depth, 256))
        points = _scan(depth, matrix, np.linalg.inv(shifted @ rectified @ to_camera))
        (raw / drive / 'velodyne_points/data').mkdir(parents=True, exist_ok=True)
        (raw / drive / f'velodyne_points/data/{t:010d}.bin').write_bytes(points.astype('<f4').tobytes())
    return cameras


def _scan(depth: np.ndarray, matrix: np.ndarray, to_laser: np.ndarray) -> np.ndarray:
    """``(N, 4)`` points that fall on every second pixel; KITTI's pixel i is that of projection i + 1."""
    columns, rows = (part[::2, ::2] for part in np.meshgrid(np.arange(depth.shape[1]), np.arange(depth.shape[0])))
    rays = np.stack([columns + 1, rows + 1, np.ones(rows.shape)], axis=-1).reshape(-1, 3) @ np.linalg.inv(matrix).T
    seen = rays * depth[::2, ::2].reshape(-1, 1)
    laser = seen @ to_laser[:3, :3].T + to_laser[:3, 3]
    behind = np.array([[-3.0, 0, 0]])
    laser = np.concatenate([laser, behind])
    return np.column_stack([laser, np.full(len(laser), 0.5)])


def _latitude_longitude(place: np.ndarray, latitude: float = 49.0, longitude: float = 8.4) -> tuple[float, float]:
    """Of a place ``(x, y)`` metres in the Mercator plane, counted from ``latitude`` and ``longitude`` in degrees."""
    scale = np.cos(np.radians(latitude)) * 6378137.0
    north = scale * np.log(np.tan(np.radians(90 + latitude) / 2)) + place[1]
    return np.degrees(2 * np.arctan(np.exp(north / scale))) - 90, longitude + np.degrees(place[0] / scale)


def _words(numbers: object) -> str:
    return ' '.join(repr(float(number)) for number in numbers)
