"""Template protection schemes, one file per scheme: from an embedding to a template that a server may store."""

from ppfr.templates._controls import ConstantTemplates as ConstantTemplates
from ppfr.templates._controls import UnprotectedTemplates as UnprotectedTemplates
from ppfr.templates._identity_mapping import IdentityMapping as IdentityMapping
from ppfr.templates._key_encryption import KeyEncryptionKey as KeyEncryptionKey
from ppfr.templates._key_selection import Inverter as Inverter
from ppfr.templates._key_selection import SelectedKey as SelectedKey
from ppfr.templates._key_selection import select_key as select_key
from ppfr.templates._polynomial_mapping import PolynomialMapping as PolynomialMapping
from ppfr.templates._schemes import SCHEMES as SCHEMES
from ppfr.templates._schemes import scheme_of as scheme_of
from ppfr.templates._stores import KeyStore as KeyStore
from ppfr.templates._stores import TemplateStore as TemplateStore
