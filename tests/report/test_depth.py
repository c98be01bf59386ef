"""What a surface hides of itself, against rays followed one by one."""

import numpy as np

from landscape.report.surfaces.depth import ELEVATIONS, Heights


def heights(function, n=61):
    x = np.linspace(-2, 2, n)
    return Heights(x, x, function(x[None, :], x[:, None]), 0.0, 1.0, tall=1.0)


def test_a_plane_hides_nothing():
    flat = heights(lambda u, v: 0.5 + 0.1 * u + 0 * v)
    places = np.random.default_rng(0).uniform(-1.9, 1.9, (50, 2))
    assert not flat.hidden(places, 30.0, -62.0).any()


def test_a_wall_hides_what_its_shadow_covers():
    """Seen along v from below (azimuth -90), a wall of height 1/2 at v = -1 hides up to its height / tan(elevation)."""
    wall = heights(lambda u, v: np.where(np.abs(v + 1) < 0.04, 0.5, 0.0) + 0 * u, n=401)
    for elevation in (20.0, 40.0, 60.0):
        shadow = 0.5 / np.tan(np.radians(elevation)) * 4  # the box has sides of length 1, the axis runs over 4
        places = np.array([[0.3, -1 + 0.9 * shadow], [0.3, -1 + 1.1 * shadow], [0.3, -1.5]])
        inside = places[:, 1] < 2
        expected = np.array([True, False, False])
        assert (wall.hidden(places[inside], elevation, -90.0) == expected[inside]).all()


def test_the_camera_rises_until_the_place_is_seen():
    wall = heights(lambda u, v: np.where(np.abs(v + 1) < 0.04, 0.28, 0.0) + 0 * u, n=401)
    assert wall.elevation(np.array([0.0, -1.5]), -90.0) == ELEVATIONS[0]
    assert wall.elevation(np.array([0.0, 0.0]), -90.0) == 52  # 0.28 over a distance of 1 / 4 is a slope of 48 degrees


def test_heights_are_those_of_the_surface():
    bowl = heights(lambda u, v: 0.1 * u + 0.05 * v + 0.3)
    np.testing.assert_allclose(bowl.at(np.array([[0.5, -1.0], [1.0, 1.5]])), [0.3, 0.475])
    assert np.isnan(bowl.at(np.array([[3.0, 0.0]]))).all()


def test_a_network_below_the_interpolated_surface_is_seen_where_the_surface_is():
    """Between the points of a coarse grid the surface is drawn over a mark in an open valley: it does not hide it."""
    x = np.linspace(-1, 1, 5)
    valley = np.abs(x)[:, None] + 0 * x  # along x, with its bottom in y = 0
    seen = Heights(x, x, valley, -1.0, 1.0)
    place = np.array([[0.25, 0.25]])
    assert not seen.hidden(place, 60, -62, np.array([0.2])).any()
    assert not seen.hidden(place, 60, -62, np.array([-0.5])).any()
    wall = np.where(np.arange(5)[:, None] == 1, 1.0, valley)  # at y = -0.5, before it
    assert Heights(x, x, wall, -1.0, 1.0).hidden(place, 20, -62, np.array([-0.5])).all()
