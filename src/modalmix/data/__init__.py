"""Data: records, readers, splits, samplers, the planted shop. Needs no torch."""

from modalmix.data.build import from_frames, make_dataset
from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.describe import describe, description_table
from modalmix.data.doctor import Examination, examination_table, examine
from modalmix.data.filters import k_core
from modalmix.data.folder import read_folder
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.leaks import LeakReport, leak_report
from modalmix.data.mmrec import read_mmrec
from modalmix.data.modality import Modality
from modalmix.data.read import detect_format, read_dataset
from modalmix.data.recbole import read_recbole
from modalmix.data.samplers import negatives, triples
from modalmix.data.schema import Columns, ReadConfig
from modalmix.data.sequences import Sequences
from modalmix.data.split import Holdout, Split, TrainData
from modalmix.data.splitters import SplitConfig, make_split, read_split, split_from_labels, write_split
from modalmix.data.tables import read_table, read_tables
from modalmix.data.write import write_folder, write_modality

__all__ = [
    "Catalog",
    "Columns",
    "Dataset",
    "Examination",
    "Holdout",
    "IdMap",
    "Interactions",
    "LeakReport",
    "Modality",
    "ReadConfig",
    "Sequences",
    "Split",
    "SplitConfig",
    "TrainData",
    "describe",
    "description_table",
    "detect_format",
    "examination_table",
    "examine",
    "from_frames",
    "k_core",
    "leak_report",
    "make_dataset",
    "make_split",
    "negatives",
    "read_dataset",
    "read_folder",
    "read_mmrec",
    "read_recbole",
    "read_split",
    "read_table",
    "read_tables",
    "split_from_labels",
    "triples",
    "write_folder",
    "write_modality",
    "write_split",
]
