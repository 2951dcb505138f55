"""Sweet Home 3D homes written as the program writes them: Home.xml and numbered contents in a zip archive."""

import io
import zipfile

from PIL import Image

OBJ = "mtllib m.mtl\nv 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\nv 0 0 4\nv 2 0 4\nusemtl red\nf 1 2 3\nf 1 3 4\nf 1 2 6 5\n"
MTL = "newmtl red\nKd 0.8 0.1 0.1\n"
# a room of 4 x 3 m, walls of 10 cm round it; walls run clockwise on the screen, so that the room is on their right
WALLS = [(0, 0, 400, 0), (400, 0, 400, 300), (400, 300, 0, 300), (0, 300, 0, 0)]


def home_xml(extra="", walls=WALLS, rooms=True) -> str:
    text = "<?xml version='1.0'?>\n<home version='7000' name='test.sh3d' camera='topCamera' wallHeight='250.0'>\n"
    text += "  <furnitureVisibleProperty name='NAME'/>\n  <environment groundColor='00E8E8E8' photoWidth='400'>\n"
    text += "    <camera id='camera-1' attribute='topCamera' x='50' y='1' z='9' yaw='3' pitch='1' fieldOfView='1'/>\n"
    text += f"  </environment>\n{extra}\n"
    for index, (x0, y0, x1, y1) in enumerate(walls):
        before, after = f"wall-{(index - 1) % len(walls)}", f"wall-{(index + 1) % len(walls)}"
        text += f"  <wall id='wall-{index}' wallAtStart='{before}' wallAtEnd='{after}' xStart='{x0}' yStart='{y0}' xEnd='{x1}'"
        text += f" yEnd='{y1}' height='250.0' thickness='10.0' pattern='hatchUp' rightSideColor='FF4080C0'>\n"
        text += "    <texture attribute='leftSideTexture' name='brick' width='50.0' height='50.0' image='7'/>\n  </wall>\n"
    if rooms:
        text += "  <room id='room-1' name='Kitchen' areaVisible='true' floorColor='FF804020'>\n"
        text += "".join(f"    <point x='{x}' y='{y}'/>\n" for x, y in ((0, 0), (400, 0), (400, 300), (0, 300)))
        text += "  </room>\n"
    return text + "</home>\n"


CHAIR = (
    "<pieceOfFurniture id='p1' catalogId='eTeks#chair' name='Chair' model='3/chair.obj' icon='4' x='100.0' y='50.0' "
    "angle='1.5707964' width='40.0' depth='60.0' height='90.0'/>"
)
DOOR = (
    "<doorOrWindow id='d1' name='Front door' x='200.0' y='0.0' width='90.0' depth='10.0' height='210.0' model='3/chair.obj'>"
    "<sash xAxis='0' yAxis='0' width='1' startAngle='0' endAngle='-1.5'/></doorOrWindow>"
)


def write_home(path, xml, contents=()):
    picture = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 100, 50)).save(picture, "PNG")
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Home", b"\xac\xed\x00\x05sr")  # the same home as Java objects, which is never read
        if xml is not None:
            archive.writestr("Home.xml", xml.encode())
        archive.writestr("ContentDigests", "ContentDigests-Version: 1.0\n\n")
        for name, data in {"3/chair.obj": OBJ, "3/m.mtl": MTL, "7": picture.getvalue(), **dict(contents)}.items():
            archive.writestr(name, data)
    return path
