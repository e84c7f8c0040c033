"""Published results on the test split of VGGSound: facts with their sources, printed as their source prints them.

They were measured by their authors on their own clips (of 8 s in MMAudio's table), so they stand in a table of their
own and never compete with what is measured here. Numbers that no source at hand states are None.

Sources: SpecMaskFoley (arXiv 2505.16195) for its own row, MMAudio (arXiv 2412.15322, Table 1) for the others; FAD and
DeSync of those that SpecMaskFoley's Fig. 1 shows agree with it. SpecMaskFoley's Table 2 (forms of guidance) is not
here: no source at hand states its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

MMAUDIO, SPECMASKFOLEY = "MMAudio, Table 1", "SpecMaskFoley, Table 1"
SOURCES = {MMAUDIO: "arXiv 2412.15322", SPECMASKFOLEY: "arXiv 2505.16195"}

# Kinds of methods in SpecMaskFoley's Fig. 1
ADAPTED, SCRATCH, CONTROLNET = "latent adaptation and alignment", "trained from scratch", "ControlNet"


@dataclass(frozen=True, kw_only=True)
class Published:
    """One system as printed: FD and KL on PaSST, FAD on VGGish, IB score times 100, DeSync and time in seconds."""

    system: str
    method: str
    fd: str
    fad: str
    kl: str
    ib: str
    desync: str
    time_s: str | None = None  # to generate one clip
    parameters: str | None = None
    source: str = MMAUDIO


TABLE_1 = (
    Published(
        system="ReWaS", method=CONTROLNET,
        fd="141.38", fad="1.79", kl="2.82", ib="14.82", desync="1.062", time_s="15.97", parameters="619 M",
    ),
    Published(
        system="FoleyCrafter", method=CONTROLNET,
        fd="140.09", fad="2.51", kl="2.23", ib="25.68", desync="1.225", time_s="1.67", parameters="1.22 B",
    ),
    Published(
        system="Seeing&Hearing", method=ADAPTED,
        fd="219.01", fad="5.40", kl="2.30", ib="33.99", desync="1.204", time_s="14.55", parameters="415 M",
    ),
    Published(
        system="V2A-Mapper", method=ADAPTED,
        fd="84.57", fad="0.84", kl="2.56", ib="22.58", desync="1.225", parameters="229 M",
    ),
    Published(
        system="V-AURA", method=SCRATCH,
        fd="218.50", fad="2.88", kl="2.07", ib="27.64", desync="0.654", time_s="16.55", parameters="695 M",
    ),
    Published(
        system="VATT", method=SCRATCH,
        fd="131.88", fad="2.77", kl="1.41", ib="25.00", desync="1.195",
    ),
    Published(
        system="Frieren", method=SCRATCH,
        fd="106.10", fad="1.34", kl="2.86", ib="22.78", desync="0.851", parameters="159 M",
    ),
    Published(
        system="MMAudio-S-16kHz", method=SCRATCH,
        fd="70.19", fad="0.79", kl="1.59", ib="29.13", desync="0.483", time_s="1.23", parameters="157 M",
    ),
    Published(
        system="MMAudio-S-44.1kHz", method=SCRATCH,
        fd="65.25", fad="1.66", kl="1.44", ib="32.27", desync="0.444",
    ),
    Published(
        system="MMAudio-M-44.1kHz", method=SCRATCH,
        fd="61.88", fad="1.13", kl="1.41", ib="32.99", desync="0.443",
    ),
    Published(
        system="MMAudio-L-44.1kHz", method=SCRATCH,
        fd="60.60", fad="0.97", kl="1.40", ib="33.22", desync="0.442", time_s="1.96", parameters="1.03 B",
    ),
    Published(
        system="SpecMaskFoley", method=CONTROLNET,
        fd="109", fad="1.03", kl="1.76", ib="26.4", desync="0.65", time_s="0.47", parameters="300 M",
        source=SPECMASKFOLEY,
    ),
)  # fmt: skip
