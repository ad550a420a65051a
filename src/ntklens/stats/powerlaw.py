"""Laws of an observable along an axis: fits with honest intervals, and the forms against each other."""

import contextlib
import difflib
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2
from scipy.stats import f as fisher

from ntklens.errors import InputError
from ntklens.stats.forms import FORMS, Form
from ntklens.stats.overview import describe_fit, describe_fit_html, describe_interval, describe_law, describe_law_html
from ntklens.stats.profile import LEVEL, Profile, find_quantile, profile, solve_many, thin
from ntklens.stats.samples import SEED, Samples, check_names, check_samples, floor_variance, solve_excess

OCTAVE = 2.0
TURNING = 60  # places at which a curve is looked at, for where it turns
THIN = 40  # values of ψ in a bootstrap
REPLICATES = 200  # of a bootstrap that only has to give a standard deviation
EVEN = (
    0.3  # of Σ w r² = K − p in the weights: a few points tell τ badly, and too small a τ trusts the quiet ones blindly
)
ROUNDS = 30  # of weights and fit in turns
EXPLAINED = 0.9  # of the variance of ln y along the axis: a curve that explains less does not describe the points
CLEAR = 2.0  # by how much AICc must fall before a richer form is preferred
DECIDED = 4.0  # by how much it must be higher for a power law to be rejected: of true ones 0 to 5 % are, measured
CONSTANT = 0.05  # exponents within ± this are no trend (SCIENCE: verdict rules)
STEEPEST = 20.0  # an exponent beyond is that of a regime outside the sweep: no bound
EXACT = 1e-6  # residuals of ln y that are rounding of float32, and no departure
NO_FIT = "no fit: "  # before the reason, in a finding
SAME = "the same at every value"  # what does not depend on the axis, in words
CANDIDATES = ("power", "affine", "offset_power", "plateau_power", "power_plateau", "crossover")


@dataclass(frozen=True, repr=False)
class Interval:
    """A number with its 95 % interval; all NaN if there is no number.

    Attributes:
      value: the number.
      low: lower end, −inf where the data set no bound.
      high: upper end, inf where the data set no bound.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    def __repr__(self) -> str:
        """Return value and ends to four digits."""
        return f"Interval({describe_interval(self)})"

    def is_inside(self, low: float, high: float) -> bool:
        """Return whether the whole interval lies in [low, high]."""
        return low <= self.low and self.high <= high

    def is_outside(self, low: float, high: float) -> bool:
        """Return whether the whole interval lies outside [low, high]."""
        return self.high < low or self.low > high


NOTHING = Interval()


@dataclass(frozen=True, repr=False)
class Fit:
    """One form, fitted.

    Attributes:
      form: its name in `FORMS`.
      parameters: name → interval.
      samples: what was fitted.
      misfit: τ, the relative s.d. of points about the curve beyond what seeds explain.
      r2: share of the variance of ln y along the axis that the curve explains.
      log_likelihood: of all seeds, apart from a term that all forms share.
      aicc: −2 ln L + 2 p N / (N − p − 1), N seeds, p parameters and τ.
      holdout: r.m.s. of ln y − ln f over the top octave of x, f fitted without it; NaN if too few points remain.
      without_top: the exponent fitted without the top octave.
      without_bottom: the exponent fitted without the bottom octave.
      bootstrap: the exponent's interval by the crossed bootstrap.
      profile: what intervals and bands are read from.
    """

    form: str
    parameters: dict[str, Interval]
    samples: Samples
    misfit: float
    r2: float
    log_likelihood: float
    aicc: float
    profile: Profile
    holdout: float = math.nan
    without_top: Interval = NOTHING
    without_bottom: Interval = NOTHING
    bootstrap: Interval = NOTHING

    def __repr__(self) -> str:
        """Return one line; the attributes hold the rest."""
        return describe_fit(self)

    def _repr_html_(self) -> str:
        return describe_fit_html(self)

    @property
    def x(self) -> np.ndarray:
        """Axis values, shape [K]."""
        return self.samples.x

    @property
    def mean(self) -> np.ndarray:
        """Means that were fitted, positive, shape [K]."""
        return self.samples.mean

    @property
    def sem(self) -> np.ndarray:
        """Standard errors of the means, shape [K]."""
        return self.samples.mean * np.sqrt(self.samples.variance)

    @property
    def count(self) -> np.ndarray:
        """Values behind each mean, shape [K]."""
        return self.samples.count

    @property
    def sign(self) -> int:
        """−1 if the fit is of −y."""
        return self.samples.sign

    @property
    def is_describing(self) -> bool:
        """Whether the curve describes the points: they lie about it by chance (χ² at 5 %), or follow its course."""
        residuals, variance = self.profile.residuals, self.samples.variance
        if self.count.min() > 1 and (variance > 0).all():
            scatter = float(np.sum(residuals**2 / variance))
            if chi2.sf(scatter, self.profile.degrees) >= 1 - LEVEL:
                return True
        return bool(self.r2 >= EXPLAINED)

    @property
    def is_degenerate(self) -> bool:
        """Whether ψ lies at the end of where it is looked for: the data ask for another form, the limit of this one."""
        return len(self.profile.psi) > 1 and self.profile.best in (0, len(self.profile.psi) - 1)

    @property
    def exponent(self) -> Interval:
        """α with its interval; NaN for forms without one."""
        return self.parameters.get("exponent", NOTHING)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return sign · y of the curve at x."""
        return np.exp(self.profile.predict_logs(np.asarray(x, float)))

    def predict_band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of the curve's pointwise 95 % interval at x."""
        low, high = self.profile.predict_band(np.asarray(x, float))
        return np.exp(low), np.exp(high)


@dataclass(frozen=True)
class Course:
    """Whether means follow a power law or bend about it.

    Attributes:
      points: means along the axis.
      p: p-value of the power law against a parabola in ln x, ln y, or, if smaller, against crossovers where one was
        looked for; NaN where points are too few for a test.
      rival: the form whose AICc is the lowest, if it is lower than the power law's and points were tested; else empty.
      gain: by how much it is lower: up to 2 says nothing, beyond 4 rejects the power law.
    """

    points: int = 0
    p: float = math.nan
    rival: str = ""
    gain: float = 0.0

    @property
    def is_tested(self) -> bool:
        """Whether there are points enough for the test."""
        return not math.isnan(self.p)

    @property
    def is_rejected(self) -> bool:
        """Whether the power law is rejected: by the test at 5 %, or by an AICc that is higher by more than 4."""
        return self.p < 1 - LEVEL or self.gain > DECIDED

    @property
    def is_bent(self) -> bool:
        """Whether the power law is rejected, or another form describes the means better."""
        return self.is_rejected or self.gain > CLEAR

    @property
    def is_straight(self) -> bool:
        """Whether the means may be said to follow a power law: it was tested, and nothing speaks against it."""
        return self.is_tested and not self.is_bent

    @property
    def is_power(self) -> bool:
        """Whether the means follow a power law and no other form describes them as well."""
        return self.is_straight and not self.rival

    def __str__(self) -> str:
        """Return what keeps the means from being a power law, in words; empty if nothing does."""
        formula = FORMS[self.rival].formula if self.rival else ""
        better = f"the AICc of {formula} is lower by {self.gain:.1f}" if self.gain > CLEAR else ""
        if self.is_rejected:
            p = f"p = {self.p:.3f}" if self.p < 1 - LEVEL else ""
            return f"a power law is rejected ({', '.join(filter(None, (p, better)))})"
        if better:
            return f"whether it is a power law is open: {better}"
        if not self.is_tested:
            return f"{self.points} points are too few to test for a power law, which takes {_find_least_tested()}"
        return f"a power law and {formula} describe the points alike (AICc)" if self.rival else ""


def _find_least_tested() -> int:
    return FORMS["parabola"].least_points


@dataclass(frozen=True, repr=False)
class Law:
    """All forms fitted to one observable along one axis.

    Attributes:
      observable: its name.
      axis: the override that was swept.
      group: what else was swept has this value, as `key=value`; empty if nothing was.
      fits: form → fit.
      preferred: the form that the data ask for; None if nothing was fitted.
      refusals: form → why it was not fitted.
      finding: one sentence.
      crossover_p: p-value of the power law against crossovers; NaN where none was looked for.
      is_same: whether every network has one value at all x, `Samples.is_same`: there is nothing to fit.
    """

    observable: str
    axis: str
    group: str
    fits: dict[str, Fit]
    preferred: str | None
    refusals: dict[str, str]
    finding: str
    crossover_p: float = math.nan
    is_same: bool = False

    @functools.cached_property
    def course(self) -> Course:
        """Whether the means follow a power law, or bend about it."""
        return judge_course(self.fits, self.crossover_p)

    def is_described_by(self, form: str) -> bool:
        """Return whether a form describes the points; a power law that they bend about does not."""
        return self.fits[form].is_describing and not (form == "power" and self.course.is_bent)

    def __repr__(self) -> str:
        """Return one line; the attributes hold the rest."""
        return describe_law(self)

    def _repr_html_(self) -> str:
        return describe_law_html(self)


def fit_form(samples: Samples, form: str) -> Fit:
    """Fit one form to means over seeds by generalised least squares on their logarithms.

        ln y_k = ln f(x_k) + scatter_k + noise_k,  Var(scatter) = τ²,  Var(noise_k) = the variance of ln mean

    τ² by Paule & Mandel 1982 (Σ r²/(τ² + v) = K − p); intervals from the profile of the weighted sum of squares with
    t-quantiles at K − p degrees of freedom and the scale of Knapp & Hartung 2003. A plain bootstrap over seeds
    ignores the intrinsic scatter and is too sure. What all points share through a draw of the data moves the size of y,
    not its shape: it widens the interval of parameters in units of y alone.

    Args:
      samples: the means.
      form: a name in `FORMS`.

    Returns:
      The fit.

    Raises:
      InputError: on too few points, saying how many it needs; if no member of the form fits; on a form of another
        name, or samples that are not what `summarise` returns.
    """
    family = _find_form(samples, form)
    points = len(samples.x)
    if points < family.least_points:
        there = "is 1" if points == 1 else f"are {points or 'none'}"
        raise InputError(f"needs {family.least_points} points along the axis, there {there}")
    logs, misfit = np.log(samples.mean), 0.0  # misfit: τ² of the weights
    fitted = None
    for _ in range(ROUNDS):
        fitted = profile(family, samples.x, logs, 1 / floor_variance(samples.variance + misfit), rounds=1)
        if fitted is None:
            raise InputError("no curve of this form is positive at every point")
        previous, misfit = misfit, solve_excess(fitted.residuals, samples.variance, EVEN * fitted.degrees)
        if abs(misfit - previous) <= 1e-3 * (misfit + previous):
            break
    fitted = profile(family, samples.x, logs, 1 / floor_variance(samples.variance + misfit))
    assert fitted is not None
    likelihood = _measure_likelihood(fitted.residuals, samples.variance)
    size, seeds = family.size + 1, int(samples.count.sum())
    penalty = 2 * size * seeds / (seeds - size - 1) if seeds > size + 1 else math.inf
    total = float(np.sum((logs - logs.mean()) ** 2))
    return Fit(
        form=form,
        parameters=_read_parameters(fitted, samples),
        samples=samples,
        misfit=math.sqrt(solve_excess(fitted.residuals, samples.variance, fitted.degrees)),
        r2=1 - float(np.sum(fitted.residuals**2)) / total if total > 0 else math.nan,
        log_likelihood=likelihood,
        aicc=-2 * likelihood + penalty,
        profile=fitted,
    )


def _find_form(samples: Samples, form: str) -> Form:
    check_samples(samples)
    if form not in FORMS:
        close = difflib.get_close_matches(str(form), FORMS, n=1, cutoff=0.5)
        meant = f"did you mean {close[0]}? " if close else ""
        raise InputError(f"form={form!r}: no such form; {meant}There are {', '.join(FORMS)}")
    return FORMS[form]


def _measure_likelihood(residuals: np.ndarray, variance: np.ndarray) -> float:
    """Return the largest −½ Σ [ln(v + τ²) + r²/(v + τ²)] over τ²; a grid is exact enough to compare forms."""
    squares = np.concatenate([[0.0], np.geomspace(1e-8, max(1e-6, float(np.max(residuals**2)) * 4), 200)])
    total = floor_variance(variance[None] + squares[:, None])
    return float(np.max(-0.5 * np.sum(np.log(total) + residuals**2 / total, axis=1)))


def _read_parameters(fitted: Profile, samples: Samples) -> dict[str, Interval]:
    family = fitted.form
    parameters: dict[str, Interval] = {}
    for number, name in enumerate(family.linear):
        gradient = np.zeros((len(fitted.psi), len(family.linear)))
        gradient[:, number] = 1
        interval = Interval(*fitted.find_interval(gradient))
        if family.logarithmic and number == 0:
            logs = _widen(interval, None, fitted.degrees, samples)
            parameters[name] = Interval(*(_exponential(v) for v in (logs.value, logs.low, logs.high)))
        elif family.logarithmic:
            ends = (
                end if abs(end) < STEEPEST else math.copysign(math.inf, end) for end in (interval.low, interval.high)
            )
            parameters[name] = Interval(interval.value, *ends)
        else:
            parameters[name] = _widen(interval, interval.value, fitted.degrees, samples)
    if family.nonlinear == "exponent":
        low, high = fitted.find_psi_interval()
        parameters["exponent"] = Interval(float(fitted.psi[fitted.best]), low, min(high, 0.0))
    elif family.nonlinear == "scale":
        low, high = fitted.find_psi_interval()
        parameters["scale"] = Interval(float(fitted.psi[fitted.best]), max(0.0, low), high)
        if "exponent_above" in parameters and math.isinf(high):  # what lies beyond may be anything
            parameters["exponent_above"] = Interval(parameters["exponent_above"].value, -math.inf, math.inf)
    elif family.linear == ("intercept", "slope"):
        parameters["scale"] = divide(fitted, 0, 1)
    elif "curvature" in family.linear:
        vertex = divide(fitted, 1, 2)
        parameters["peak"] = Interval(*(_exponential(-0.5 * v) for v in (vertex.value, vertex.high, vertex.low)))
    return parameters


def _exponential(value: float) -> float:
    return math.exp(min(value, 700.0))


def _widen(interval: Interval, size: float | None, degrees: int, samples: Samples) -> Interval:
    """Add what all points share, a factor e^b, to the interval of a parameter in units of y.

    Variances add up; their degrees of freedom by Welch & Satterthwaite.

    Args:
      interval: without it.
      size: of the parameter; None: the parameter is the logarithm of a size, and b is added.
      degrees: of freedom of the interval.
      samples: know the variance of b.

    Returns:
      The wider interval.
    """
    if samples.common == 0:
        return interval

    def combine(half: float, direction: int) -> float:
        own = (half / find_quantile(degrees)) ** 2
        shared = samples.common * (1 if size is None else size**2)
        together = (own + shared) ** 2 / (own**2 / degrees + shared**2 / max(1, samples.levels - 1))
        quantile = find_quantile(together)
        factor = quantile * math.sqrt(samples.common)
        moved = factor if size is None else abs(size) * abs(math.expm1(direction * factor))
        return math.hypot(quantile * math.sqrt(own), moved)

    value = interval.value
    away = 1 if size is None or size > 0 else -1
    return Interval(value, value - combine(value - interval.low, -away), value + combine(interval.high - value, away))


def divide(fitted: Profile, above: int, below: int) -> Interval:
    """Return c_above / c_below with the interval of Fieller 1954; infinite ends where the denominator may be zero."""
    best = fitted.best
    c, covariance = fitted.coefficients[best], fitted.covariance[best] * fitted.threshold
    a, b = float(c[above]), float(c[below])
    if b == 0:
        return Interval(math.inf, -math.inf, math.inf)
    square = b**2 - covariance[below, below]
    middle = a * b - covariance[above, below]
    discriminant = middle**2 - square * (a**2 - covariance[above, above])
    if square <= 0 or discriminant < 0:
        return Interval(a / b, -math.inf, math.inf)
    root = math.sqrt(discriminant)
    return Interval(a / b, (middle - root) / square, (middle + root) / square)


def check_fit(fit: Fit, rng: np.random.Generator) -> Fit:
    """Return the fit with what it takes to trust it: extrapolation, stability, bootstrap.

    Args:
      fit: as `fit_form` made it.
      rng: of the bootstrap.
    """
    x = fit.samples.x
    top, bottom = x <= x.max() / OCTAVE * (1 + 1e-9), x >= x.min() * OCTAVE * (1 - 1e-9)
    holdout, without_top, without_bottom = math.nan, NOTHING, NOTHING
    with contextlib.suppress(InputError):
        lower = fit_form(fit.samples.select(top), fit.form)
        without_top = lower.exponent
        errors = np.log(fit.samples.mean[~top]) - lower.profile.predict_logs(x[~top])
        holdout = float(np.sqrt(np.mean(errors**2)))
    with contextlib.suppress(InputError):
        without_bottom = fit_form(fit.samples.select(bottom), fit.form).exponent
    return replace(
        fit,
        holdout=holdout,
        without_top=without_top,
        without_bottom=without_bottom,
        bootstrap=bootstrap_exponent(fit, rng),
    )


def bootstrap_exponent(fit: Fit, rng: np.random.Generator, replicates: int = REPLICATES) -> Interval:
    """Return the exponent's interval by a crossed bootstrap: α ± t · s.d. of α over replicates.

    Levels of draws and probes are drawn with replacement once for all points, seeds anew at every point; the scatter is
    added as a normal of its own. Standard deviations over n levels are too small by √((n − 1)/n), which is undone.

    Args:
      fit: gives values, weights and intrinsic scatter.
      rng: the random numbers.
      replicates: how many.

    Source: crossed resampling as Owen 2007, Annals of Applied Statistics 1(2).
    """
    if "exponent" not in fit.parameters:
        return NOTHING
    samples = fit.samples
    noise = _resample_logs(samples, rng, replicates)
    noise += fit.misfit * rng.standard_normal(noise.shape)
    logs = fit.profile.predict_logs(samples.x) + noise
    exponents = _fit_exponents(fit, logs)
    half = find_quantile(fit.profile.degrees) * float(exponents.std(ddof=1))
    value = fit.exponent.value
    return Interval(value, value - half, value + half)


def _resample_logs(samples: Samples, rng: np.random.Generator, replicates: int) -> np.ndarray:
    """Return ln of resampled means, minus their own values, shape [replicates, K]."""
    values = samples.values
    noise = np.zeros((replicates, len(samples.x)))
    for number, factor in enumerate(samples.factors):
        rows = np.moveaxis(values, number + 1, 1).reshape(len(values), values.shape[number + 1], -1)
        there = np.isfinite(rows).any(axis=2)
        levels = np.where(there, np.nansum(rows, axis=2) / np.maximum(1, np.isfinite(rows).sum(axis=2)), np.nan)
        size = levels.shape[1]
        if size < 2:
            continue
        shape = (replicates, len(values) if factor == SEED else 1, size)
        chosen = np.broadcast_to(rng.integers(size, size=shape), (replicates, len(values), size))
        drawn = levels[np.arange(len(values))[None, :, None], chosen]
        counted = np.isfinite(drawn).sum(axis=2)
        means = np.where(counted > 0, np.nansum(drawn, axis=2) / np.maximum(counted, 1), np.nanmean(levels, axis=1))
        relative = means / np.nanmean(levels, axis=1) - 1
        noise += np.log1p(np.maximum(relative, -0.99)) * math.sqrt(size / (size - 1))
    return noise


def _fit_exponents(fit: Fit, logs: np.ndarray) -> np.ndarray:
    """Return the exponents of many data, [R, K] → [R], over a thinned grid of ψ."""
    family, samples = fit.profile.form, fit.samples
    weights = 1 / floor_variance(samples.variance + fit.misfit**2)
    psi = thin(fit.profile.psi, THIN)
    coefficients, loss = solve_many(family, samples.x, psi, logs, weights)
    best = np.argmin(loss, axis=1)
    if family.nonlinear == "exponent":
        return psi[best]
    return coefficients[np.arange(len(logs)), best, family.linear.index("exponent")]


def choose_form(fits: dict[str, Fit]) -> str | None:
    """Return the form that the data ask for.

    The power law, unless another, no richer than it needs to be, has an AICc lower by more than 2 and predicts the top
    octave no worse. AICc counts seeds, not means: on a few means it could never choose the richer form.
    """
    best = None
    for name in sorted(fits, key=lambda name: (FORMS[name].size, CANDIDATES.index(name))):
        if not _find_objection(fits[name], fits.get(best or "")):
            best = name
    return best


def explain_choice(law: Law) -> dict[str, str]:
    """Return why each form that was fitted is not preferred, in a few words; of the preferred one nothing."""
    best = law.fits.get(law.preferred or "")
    return {form: "" if fit is best else _find_objection(fit, best) for form, fit in law.fits.items()}


def _find_objection(fit: Fit, best: Fit | None) -> str:
    """Return why a form is not preferred to the best of those that are no richer; empty if it is."""
    if fit.is_degenerate:
        return f"{FORMS[fit.form].nonlinear} at a bound"
    if best is None:
        return ""
    if not fit.aicc < best.aicc:
        return "AICc no lower"
    if not fit.aicc < best.aicc - CLEAR:
        return f"AICc lower by {CLEAR:g} at most"
    if math.isnan(fit.holdout):
        return "no hold-out"
    return "hold-out worse" if fit.holdout > best.holdout else ""


def add_crossover(law: Law, p: float) -> Law:
    """Return a law that knows how a crossover was looked for: what it says of a power law must agree with that.

    Args:
      law: of an observable.
      p: p-value of the power law against crossovers, `Transition.power_p`.
    """
    if not law.fits or math.isnan(p):
        return law
    return replace(law, crossover_p=p, finding=_describe(law.fits, law.preferred, law.refusals, p))


def judge_course(fits: Mapping[str, Fit], crossover_p: float = math.nan) -> Course:
    """Test whether means follow a power law: by their curvature, and by the other forms that were fitted.

        F = (S_power − S_parabola) / max(S_parabola / (K − 3), ¼) ~ F(1, K − 3),  S = min Σ w (ln y − ln f)²

    with the weights of the power law, τ among them, and the least scale of all intervals: a few means may lie much
    closer to a parabola than their own errors, by chance.

    Points too few for this test reject nothing, by their AICc neither: it counts seeds, and they are as many at four
    points. Nor does a form whose scale or exponent is at a bound: what the data ask for is its limit, another form.

    Args:
      fits: form → fit; without a power law nothing is tested.
      crossover_p: p-value of the power law against crossovers; NaN where none was looked for.

    Returns:
      The p-value of the test, and the form that describes the means better, if one does.
    """
    power = fits.get("power")
    if power is None:
        return Course()
    samples, parabola = power.samples, FORMS["parabola"]
    points = len(samples.x)
    if points < parabola.least_points:
        return Course(points)
    if float(np.max(np.abs(power.profile.residuals))) < EXACT:
        return Course(points, 1.0)
    aicc = {form: fit.aicc for form, fit in fits.items() if fit.aicc < power.aicc and not fit.is_degenerate}
    rival = min(aicc, key=lambda form: aicc[form], default="")
    gain = power.aicc - aicc[rival] if rival else 0.0
    weights = 1 / floor_variance(samples.variance + power.misfit**2)
    straight, bent = (profile(form, samples.x, np.log(samples.mean), weights) for form in (FORMS["power"], parabola))
    assert straight is not None
    assert bent is not None
    gained = float(straight.loss[straight.best] - bent.loss[bent.best])
    p = float(fisher.sf(gained / bent.scale, 1, bent.degrees))
    return Course(points, float(np.fmin(p, crossover_p)), rival, gain)


def fit_law(
    samples: Samples,
    observable: str = "",
    axis: str = "",
    group: str = "",
    rng: np.random.Generator | None = None,
    forms: Sequence[str] | None = None,
) -> Law:
    """Fit every form, compare them, and say what was found.

    Args:
      samples: the means.
      observable: its name.
      axis: the override that was swept.
      group: what else was swept has this value.
      rng: random numbers of the bootstrap; None: a fixed generator, so that a report is the same twice.
      forms: those to fit; None: all.

    Returns:
      The fits, their comparison and what was found; no fit of what is the same at every x.

    Raises:
      InputError: if `samples` are not what `summarise` returns; without the names of observable and axis.
    """
    check_samples(samples)
    check_names("fit_law", observable, axis)
    rng = rng or np.random.default_rng(0)
    fits: dict[str, Fit] = {}
    refusals: dict[str, str] = {}
    forms = CANDIDATES if forms is None else forms
    if samples.is_same and len(samples.x) >= FORMS["power"].least_points:
        return Law(observable, axis, group, {}, None, dict.fromkeys(forms, SAME), SAME, is_same=True)
    for form in forms:
        try:
            fits[form] = check_fit(fit_form(samples, form), rng)
        except InputError as error:
            refusals[form] = str(error)
    preferred = choose_form(fits)
    return Law(observable, axis, group, fits, preferred, refusals, _describe(fits, preferred, refusals))


def _describe(
    fits: dict[str, Fit], preferred: str | None, refusals: dict[str, str], crossover_p: float = math.nan
) -> str:
    if preferred is None:
        return f"{NO_FIT}{refusals['power']}"
    course = judge_course(fits, crossover_p)
    fit, power = fits[preferred], fits.get("power")
    if preferred == "power":
        return _describe_exponent(fit, course)
    if power is not None and power.exponent.is_inside(-CONSTANT, CONSTANT):
        return _describe_exponent(power, course)
    text = f"{_name_direction(fit)} as {FORMS[preferred].formula}"
    if "exponent" in fit.parameters:
        text += f" with {_say_exponent(fit.exponent)}"
    text += f" (intrinsic scatter {fit.misfit:.1%})"
    if power is not None:
        text += (
            f", better than a power law with {_say_exponent(power.exponent)} (intrinsic scatter {power.misfit:.1%}, "
            f"AICc higher by {power.aicc - fit.aicc:.0f})"
        )
    return text + _say_course(fit)


def _name_direction(fit: Fit) -> str:
    """Return whether a curve grows, falls, or turns within the axis, by more than what is no trend."""
    logs = np.log(fit.predict(np.geomspace(fit.x[0], fit.x[-1], TURNING)))
    if logs.max() - max(logs[0], logs[-1]) > CONSTANT:
        return "rises, then falls,"
    if min(logs[0], logs[-1]) - logs.min() > CONSTANT:
        return "falls, then rises,"
    return "grows" if fit.mean[-1] > fit.mean[0] else "falls"


def _say_course(fit: Fit) -> str:
    """Return what a reader must know of a law that does not describe the points: figures do not draw it."""
    return "" if fit.is_describing else f"; but it explains only {fit.r2:.0%} of the variance of ln y"


def _say_exponent(alpha: Interval) -> str:
    return f"α = {alpha.value:.3f} [{alpha.low:.3f}, {alpha.high:.3f}]".replace("inf", "∞")


def is_constant(samples: Samples) -> bool:
    """Return whether a constant describes the means: Σ (ln ȳ − mean)² / Var(ln ȳ) is no larger than chance makes it.

    χ² with K − 1 degrees of freedom, at 5 %. Without an error of the means (one seed) it is not known: False.
    """
    if len(samples.x) < 2 or samples.count.min() < 2 or not np.all(samples.variance > 0):
        return False
    logs, weights = np.log(samples.mean), 1 / samples.variance
    mean = float(np.sum(weights * logs) / np.sum(weights))
    return float(chi2.sf(np.sum(weights * (logs - mean) ** 2), len(logs) - 1)) >= 1 - LEVEL


def describe_means(fit: Fit) -> str:
    """Return between which values the means of a fit lie, and how far these are apart."""
    low, high = sorted((fit.sign * float(fit.mean.min()), fit.sign * float(fit.mean.max())))
    return f"means between {low:.4g} and {high:.4g}, {100 * (fit.mean.max() / fit.mean.min() - 1):.2g} % apart"


def _describe_exponent(fit: Fit, course: Course) -> str:
    alpha, value = fit.exponent, _say_exponent(fit.exponent)
    if alpha.is_inside(-CONSTANT, CONSTANT) and course.is_bent:
        return f"bends, with no trend: {describe_means(fit)}, mean slope {value} within ±{CONSTANT}; {course}"
    if alpha.is_inside(-CONSTANT, CONSTANT) and not course.is_tested:
        return f"has a mean slope within ±{CONSTANT}: {value}; {course}"
    if alpha.is_inside(-CONSTANT, CONSTANT):
        return f"is constant within ±{CONSTANT}: {value}"
    if alpha.low <= 0 <= alpha.high:
        if is_constant(fit.samples):
            return f"shows no trend: {value} holds 0, and a constant describes the points within their errors"
        if course.is_rejected:
            return f"bends, and has no resolved trend: {course}, and mean slope {value} holds 0"
        if fit.is_describing:
            why = f" ({course})" if str(course) else ", and a power law describes the points"
            return f"has no resolved trend: mean slope {value} holds 0{why}"
        if fit.samples.count.min() < 2:
            return f"has no resolved trend: no power law describes it, {value} holds 0, and one seed has no error"
        return (
            f"is not constant, and no power law describes it: {value} holds 0 (intrinsic scatter about the power law "
            f"{fit.misfit:.1%}, standard error of the means {fit.samples.typical_error:.1%})"
        )
    verb = "grows" if alpha.value > 0 else "falls"
    if course.is_power and fit.is_describing:
        return f"{verb} as a power law, {value}"
    if course.is_rejected:
        return f"{verb}, with mean slope {value}, and bends: {course}"
    text = f"{verb}, with mean slope {value}{f'; {course}' if str(course) else ''}"
    return text if fit.is_describing else f"{text}; a power law explains only {fit.r2:.0%} of the variance of ln y"
