# %% [markdown]
# # A first fleet from Python
#
# Forty vehicles with two kinds of computers and two kinds of links learn together for some virtual hours.
# Their learning is synthetic, a few numbers instead of pictures, so the cells take seconds. Run them as they
# stand, or open this file as a notebook (VS Code, Jupytext).

# %%
import tempfile

import fleetfl

SETTINGS = {
    "fleet": "first-fleet",
    "seed": 3,
    "model": {"classes": ["car", "truck"]},
    "server": {"aggregator": {"kind": "fedbuff", "goal": 5}},
    "vehicle": {"codec": {"kind": "int8"}, "agent": {"status_s": 3600, "resend_s": 60}},
    "sim": {
        "clock": "virtual",
        "runs": tempfile.mkdtemp(),
        "num_vehicles": 40,
        "learning": {"kind": "synthetic", "size": 64},
        "devices": {"jetson_orin": 1, "raspberry_pi_5": 1},
        "links": [{"kind": "lte"}, {"kind": "satellite"}],
        "stop": {"hours": 48, "updates": 200},
    },
}
summary = fleetfl.simulate(SETTINGS)
print(f"{summary.releases} releases of {summary.updates_accepted} updates")
print(f"accuracy {summary.accuracy_start:.1%} -> {summary.accuracy_end:.1%}")
print(f"report: {summary.folder / 'report.html'}")

# %% [markdown]
# The events of the run are a list of dicts, which `pandas.DataFrame(...)` takes as it is. `docs/events.md`
# says what their fields mean.

# %%
accepted = summary.events("accepted")
late = [event["staleness"] for event in accepted]
print(f"{len(accepted)} updates, {sum(late) / len(late):.2f} versions late on average")

# %% [markdown]
# An override is as after `--set` on the command line. A larger buffer makes fewer releases of as many
# updates.

# %%
larger = fleetfl.simulate(SETTINGS, "server.aggregator.goal=20", "fleet=larger-buffer")
print(f"goal 5: {summary.releases} releases, goal 20: {larger.releases}")
