"""Image sets, readers, verification protocols, disjoint splits, safe decoding, detection and alignment."""

from ppfr.data._cfp import read_cfp as read_cfp
from ppfr.data._cfp import read_cfp_images as read_cfp_images
from ppfr.data._decoding import read_image as read_image
from ppfr.data._image_sets import CROP_SHAPE as CROP_SHAPE
from ppfr.data._image_sets import ArrayImageSet as ArrayImageSet
from ppfr.data._image_sets import EncodedImageSet as EncodedImageSet
from ppfr.data._image_sets import FileImageSet as FileImageSet
from ppfr.data._image_sets import StoredImageSet as StoredImageSet
from ppfr.data._image_sets import concatenate as concatenate
from ppfr.data._lfw import parse_lfw_pairs as parse_lfw_pairs
from ppfr.data._lfw import read_lfw as read_lfw
from ppfr.data._lfw import read_lfw_images as read_lfw_images
from ppfr.data._pairs import PairProtocol as PairProtocol
from ppfr.data._splits import training_split_for_cfp as training_split_for_cfp
from ppfr.data._splits import training_split_for_lfw as training_split_for_lfw
from ppfr.data._splits import without_subjects_of as without_subjects_of
from ppfr.data._subjects import assert_disjoint as assert_disjoint
from ppfr.data._subjects import canonical_subject as canonical_subject
from ppfr.data._synthetic import SyntheticFaces as SyntheticFaces
from ppfr.data._synthetic import contact_sheet as contact_sheet
from ppfr.data._synthetic import face_seeds as face_seeds
from ppfr.data._synthetic import render_face as render_face
from ppfr.data._synthetic import synthetic_pairs as synthetic_pairs
