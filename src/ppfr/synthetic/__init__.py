"""Generator of synthetic faces: the data set that is included in the package."""

from ppfr.synthetic._faces import SyntheticFaces as SyntheticFaces
from ppfr.synthetic._faces import contact_sheet as contact_sheet
from ppfr.synthetic._faces import face_seeds as face_seeds
from ppfr.synthetic._faces import render_face as render_face
from ppfr.synthetic._pairs import synthetic_pairs as synthetic_pairs
