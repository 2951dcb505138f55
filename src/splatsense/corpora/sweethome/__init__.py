"""Sweet Home 3D homes (`.sh3d`) as labelled scenes.

`home` reads Home.xml, `walls` and `polygons` make its surfaces, `build` joins them and the furniture to one mesh, and
`scene.read_home` samples it, names its parts and takes frames in its rooms. Everything is in metres with z up; plans have x
to the right and y up, against Sweet Home 3D's y down and centimetres.
"""

from splatsense.corpora.sweethome.scene import HomeSettings as HomeSettings
from splatsense.corpora.sweethome.scene import find_homes as find_homes
from splatsense.corpora.sweethome.scene import read_home as read_home
