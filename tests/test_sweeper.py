"""Our sweeper composes what Hydra's own would, and pairs axes on request."""

import itertools

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from commands import TOY, call_ntklens
from ntklens.config.schemas import find_config_directory, register_schemas
from ntklens.errors import InputError

register_schemas()

SMALL = [word for word in TOY if "width" not in word]
LINES = [
    ["scaling=width"],
    ["scaling=width", "model.width=64,128", "dataset=mnist"],
    ["scaling=joint", "dataset=digits,fashion_mnist"],
    ["experiment=mnist_width", "model.width=32,64", "optimizer=adam,sgd"],
    ["experiment=mnist_data_small", "dataset.train_size=7,9", "seed=0,20"],
    ["model.width=range(1,6,2)", "optimizer.learning_rate=1e-3,5e-4", "training.loss=mse"],
    ["optimizer=adamw,momentum", "optimizer.learning_rate=choice(0.1,0.01)", "dataset.data_seed=null,3"],
    ["model={width:3,depth:4}", "ensemble=2,3"],
    ["experiment=mnist_first,cifar10_transition_small", "precision=float32,float64"],
    ["model.width=4", "model.width=8,16", "name=x,y"],
]


@pytest.fixture
def sweeper():
    """(our sweeper, Hydra's), set up as Hydra does for `-m`."""
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2("test", create_config_search_path(str(find_config_directory())))
    # Hydra has just loaded its plugins anew.
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    from hydra_plugins.ntklens_sweeper.ntklens_sweeper import NtklensSweeper

    def build(line):
        groups = [word for word in line if word.startswith(("scaling=", "experiment=")) and "," not in word]
        master = hydra.compose_config("config", groups, RunMode.MULTIRUN)
        HydraConfig.instance().set_config(master)
        ours = NtklensSweeper(None, master.hydra.sweeper.params, master.hydra.sweeper.get("zip", []))
        theirs = BasicSweeper(None, master.hydra.sweeper.params)
        for made in (ours, theirs):
            made.hydra_context, made.config = _Context(hydra.config_loader, Callbacks()), master
        return ours, theirs

    yield build
    GlobalHydra.instance().clear()


class _Context:
    def __init__(self, config_loader, callbacks):
        self.config_loader, self.callbacks = config_loader, callbacks


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_composes_what_hydras_own_sweeper_does(sweeper, line):
    from hydra_plugins.ntklens_sweeper.ntklens_sweeper import expand_overrides

    ours, theirs = sweeper(line)
    parser = OverridesParser.create(config_loader=ours.hydra_context.config_loader)
    parsed = parser.parse_overrides([*theirs._parse_config(), *line])
    (expected_jobs,) = theirs.split_arguments(parsed, None)
    jobs, _ = expand_overrides(parsed, [])
    assert jobs == expected_jobs
    for job, cfg in zip(jobs, ours.compose(jobs, parser), strict=True):
        expected = ours.hydra_context.config_loader.load_sweep_config(ours.config, job)
        with open_dict(expected):
            del expected["hydra"]
        OmegaConf.resolve(expected)
        assert OmegaConf.to_container(cfg) == OmegaConf.to_container(expected)
        assert OmegaConf.get_type(cfg.model) is not dict  # typed by the signature of its target


def parse(*line):
    return OverridesParser.create().parse_overrides(list(line))


def test_paired_axes_go_in_step():
    from hydra_plugins.ntklens_sweeper.ntklens_sweeper import expand_overrides

    line = parse("a=1,2", "b=x,y", "c=5,6,7", "d=9")
    jobs, swept = expand_overrides(line, [["a", "b"]])
    assert swept == ["a", "b", "c"]
    pairs = itertools.product((("a=1", "b=x"), ("a=2", "b=y")), ("c=5", "c=6", "c=7"))
    assert jobs == [[*pair, c, "d=9"] for pair, c in pairs]


@pytest.mark.parametrize(
    ("zipped", "says"),
    [
        ([["a", "c"]], "a has 2, c has 3"),
        ([["a", "e"]], "e is not swept; give it values"),
        ([["a", "b"], ["a", "c"]], "a stands in it twice"),
    ],
)
def test_axes_that_cannot_be_paired_are_refused(zipped, says):
    from hydra_plugins.ntklens_sweeper.ntklens_sweeper import expand_overrides

    with pytest.raises(InputError, match=says):
        expand_overrides(parse("a=1,2", "b=x,y", "c=5,6,7"), zipped)


def test_a_paired_sweep_as_typed(tmp_path):
    words = ["model.width=3,4", "optimizer.learning_rate=1e-3,2e-3"]
    zipped = "hydra.sweeper.zip=[model.width,optimizer.learning_rate]"
    result = call_ntklens("-m", *words, zipped, *SMALL, "task=plan", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2 configurations" in result.stdout
    result = call_ntklens("-m", *words, "hydra.sweeper.zip=[model.width,ensemble]", *SMALL, "task=plan", cwd=tmp_path)
    assert result.returncode == 2
    assert "model.width has 2, ensemble has 1" in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_experiments_sweep_can_be_overridden():
    with initialize_config_dir(version_base="1.3", config_dir=str(find_config_directory())):
        cfg = compose("config", overrides=["experiment=mnist_width"], return_hydra_config=True)
    assert cfg.hydra.sweeper.params["model.width"].startswith("32,64")
