"""Networks: backbones with named taps, margin heads, the weight store and the public networks, ONNX export."""

from ppfr.models._backbone import Backbone as Backbone
from ppfr.models._backbone import PixelScaling as PixelScaling
from ppfr.models._cards import ModelCard as ModelCard
from ppfr.models._embedder import NetworkEmbedder as NetworkEmbedder
from ppfr.models._folding import for_inference as for_inference
from ppfr.models._heads import AdaFace as AdaFace
from ppfr.models._heads import ArcFace as ArcFace
from ppfr.models._heads import CosFace as CosFace
from ppfr.models._heads import MarginHead as MarginHead
from ppfr.models._iresnet import IResNet as IResNet
from ppfr.models._iresnet import ir18 as ir18
from ppfr.models._iresnet import ir50 as ir50
from ppfr.models._iresnet import ir_se50 as ir_se50
from ppfr.models._lpips import Lpips as Lpips
from ppfr.models._mobilefacenet import MobileFaceNet as MobileFaceNet
from ppfr.models._pretrained import PRETRAINED as PRETRAINED
from ppfr.models._pretrained import Pretrained as Pretrained
from ppfr.models._pretrained import load_pretrained as load_pretrained
from ppfr.models._restemmed import ConvStem as ConvStem
from ppfr.models._restemmed import Restemmed as Restemmed
from ppfr.models._restemmed import conv_stem as conv_stem
from ppfr.models._store import build_network as build_network
from ppfr.models._store import card_for as card_for
from ppfr.models._store import load_model as load_model
from ppfr.models._store import read_card as read_card
from ppfr.models._store import save_model as save_model
