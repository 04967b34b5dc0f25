"""The registry of diagnostic codes: what each one means and with which exit code it ends a command.

One dict per family; append an entry to the family's dict and `pimc explain CODE` prints it. The
families of programs (E3xx, V4xx, C5xx) stand in ``isa.codes_program``.
"""

from __future__ import annotations

from typing import Final

from isa.code import Code
from isa.codes_program import CONTAINER, SYNTAX, VERIFIER

EXIT_OK: Final = 0
EXIT_VERIFICATION_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_REJECTED: Final = 3
EXIT_DOES_NOT_FIT: Final = 4
EXIT_INTERNAL: Final = 70

# When one error carries findings of several families, the first of these decides: a bug in pimc
# hides everything else, wrong input makes "does not fit" meaningless, and so on down.
EXIT_PRIORITY: Final = (
    EXIT_INTERNAL,
    EXIT_USAGE,
    EXIT_REJECTED,
    EXIT_DOES_NOT_FIT,
    EXIT_VERIFICATION_FAILED,
)

# ------------------------------------------------------------------ T1xx: target description
TARGET: Final[dict[str, Code]] = {
    "T101": Code(
        "target not found",
        "The name is none of the shipped targets and no file of that name exists. `pimc targets "
        "list` prints the shipped ones; a path to a TOML file works wherever a name does.",
    ),
    "T102": Code(
        "target file is not readable",
        "The file is larger than 1 MiB, is not UTF-8 text, or the system refused to read it. A "
        "target description is a few kilobytes of TOML.",
    ),
    "T103": Code(
        "target description cannot be parsed",
        "The text breaks the TOML (in a container: JSON) syntax at the marked place; nothing after "
        "it was looked at.",
    ),
    "T104": Code(
        "unknown key in a target",
        "The description has a key that pimc does not know. It is refused rather than ignored, "
        "because a mistyped key would silently leave the default in force. `pimc targets schema` "
        "prints all keys.",
    ),
    "T105": Code(
        "missing key in a target",
        "A required key is absent. There are no hidden defaults for hardware numbers: take the "
        "section from a shipped target (`pimc targets show ou9x8`) and change what differs.",
    ),
    "T106": Code(
        "wrong value in a target",
        "The value has the wrong type or lies outside its range. Types are strict: `8` is not "
        '`8.5`, and `"8"` is not `8`.',
    ),
    "T107": Code(
        "contradiction in a target",
        "Each value is possible by itself, but two of them do not go together, such as an "
        "operation unit taller than its crossbar.",
    ),
    "T108": Code(
        "number without a source",
        "Every number of a target needs a source: the `sources` table of its section lists the "
        'key, or has a `"*"` entry for all keys that are not listed.',
    ),
    "T109": Code(
        "wrong override",
        "An override must read `dotted.key=value`, with a key of the target description and a "
        "TOML value (`crossbar.rows=64`, `ou.rows=4`, `name=mine`).",
    ),
}

# ------------------------------------------------------------------ F2xx: frontend, ONNX
FRONTEND: Final[dict[str, Code]] = {
    "F201": Code(
        "not a readable ONNX file",
        "The file is missing, empty, cut off in the middle, larger than a protobuf message may "
        "be, or no ONNX model at all.",
    ),
    "F202": Code(
        "external data cannot be loaded",
        "The model keeps weights in a side file that is missing, too short, or outside of the "
        "model's own folder, where pimc does not follow a path.",
    ),
    "F203": Code(
        "unsupported ONNX version",
        "The IR version or the version of the standard operator set is older or newer than the "
        "libraries below pimc can convert and run.",
    ),
    "F204": Code(
        "invalid model",
        "The onnx checker or the shape inference found a contradiction in the model: a missing "
        "tensor, a wrong attribute, or shapes that do not fit together.",
    ),
    "F205": Code(
        "dynamic shape",
        "An axis besides the batch has no fixed size. A machine with programmed buffers needs "
        "one: `--input-shape NAME=1,3,224,224` gives it.",
    ),
    "F206": Code(
        "NaN or infinity in the weights",
        "An initializer holds numbers that are not finite; they cannot be quantized.",
    ),
    "F207": Code(
        "wrong input shape option",
        "`--input-shape` names an input that the model does not have, or contradicts the shape "
        "that the model fixes.",
    ),
    "F208": Code(
        "input cannot be bound",
        "`--bind` gives values for something that is no input of the model, or values of another "
        "shape or type than the input has.",
    ),
    "F210": Code(
        "unsupported operator",
        "The operator has no form on the machine. `pimc ops` lists the supported ones.",
    ),
    "F211": Code(
        "unsupported form of an operator",
        "The operator is supported, but not with these attributes, shapes or constants.",
    ),
    "F212": Code(
        "operator of a foreign domain",
        "The operator is not from the standard operator set, nor one of the integer operators "
        "of com.microsoft that onnxruntime's quantizer writes.",
    ),
    "F213": Code(
        "control flow",
        "If, Loop, Scan and sequences decide at run time; the machine runs one fixed stream.",
    ),
    "F214": Code(
        "unsupported element type",
        "A tensor that the machine would hold has a type other than float32, int8 or uint8.",
    ),
    "F220": Code(
        "calibration data does not fit",
        "The arrays of the calibration file must carry the names of the model's inputs, one "
        "sample a row, and equal numbers of samples.",
    ),
    "F221": Code(
        "no calibration data",
        "A warning: without samples the ranges come from random noise. The program is correct "
        "for its own integers, but the quantized network is not accurate.",
    ),
    "F222": Code(
        "range is not finite",
        "On the calibration data a tensor overflows float32, so it has no scale.",
    ),
    "F223": Code(
        "no samples for a tensor of one shape",
        "Programs for several input shapes have one set of scales, from the samples of any of "
        "the shapes. A tensor that only stands in shapes without samples has no range.",
    ),
    "F224": Code(
        "weights quantized again",
        "A warning: the model's own integers cannot be used as they are, so the weights were "
        "turned into floats and quantized per output channel.",
    ),
    "F225": Code(
        "no crossbar is used",
        "Every matrix operator of the model stays on the host, so the chip gains nothing. The "
        "placement summary says why; `--no-host` makes errors of it.",
    ),
    "F226": Code(
        "read as float32",
        "A warning: a network in float16, bfloat16 or double is compiled as the float32 network "
        "with the same weights. Samples are taken and results given in the types of the model.",
    ),
    "F227": Code(
        "a constant takes nearly all steps",
        "A warning: a choice (Where) between a tensor and a constant gives a result whose range, "
        "because of the constant, is so wide that few of the 256 steps are left for the tensor.",
    ),
    "F228": Code(
        "dynamic scales become fixed ones",
        "A warning: the model quantizes the inputs of layers with scales that it finds at run "
        "time. The chip's activations have fixed scales, from calibration, so that the program is "
        "as close to the model as to a float network; the integers of the weights are kept.",
    ),
    "F229": Code(
        "16 bits become 8",
        "A warning: the model quantizes activations to 16 bits. The chip holds 8, so that the "
        "program takes the same range in 257 times the step, which costs accuracy.",
    ),
    "F230": Code(
        "a divisor rounds to 0",
        "A warning: a tensor that an operator divides by is held in 8 bits, and elements of it "
        "that are not 0 are smaller than half a step. Their quotients are infinite.",
    ),
    "F231": Code(
        "a range for a few outliers",
        "A warning: on the calibration data almost all elements of a tensor lie within one step "
        "of 0, because a few large ones make the range. Most of the 256 steps are unused.",
    ),
    "F232": Code(
        "quantized beyond what the model says",
        "A warning: the model quantizes other tensors itself, and leaves this one float32. But "
        "crossbars, and products of two tensors, compute with integers alone, so it was quantized "
        "with a range from calibration.",
    ),
    "F240": Code(
        "onnxruntime refuses the model",
        "onnxruntime could not load or run the model, though the checker found nothing wrong.",
    ),
}

# ------------------------------------------------------------------ M6xx: mapping, does not fit
MAPPING: Final[dict[str, Code]] = {
    "M601": Code(
        "layer cannot be cut to fit a core",
        "Layers are cut over cores by output channels and by blocks of input rows. This layer "
        "cannot be cut finely enough: even its smallest part needs more crossbars than one core of "
        "the target has.",
    ),
    "M602": Code(
        "model does not fit the chip",
        "The program needs more cores than the mesh of the target has. `--tiles auto` grows the "
        "mesh until the model fits and says so; `--tiles N` sets the number of cores. `--phases "
        "auto` keeps the chip: the model runs in parts, and the crossbars are written anew for "
        "each.",
    ),
    "M606": Code(
        "index tables do not fit the index memory",
        "The selectors and routes of a mapping stand in tables, and those of some core need more "
        "bits than `memory.index_bytes` of the target. The program is made for the same chip with "
        "larger index memories; their area and leakage grow with their size and are counted. "
        "`ou-tile` needs no tables; more cores (smaller parts) need less in each.",
    ),
    "M608": Code(
        "layer does not fit the chip in any phase",
        "Phases are cut between layers, and this layer alone needs more cores than the target has.",
    ),
    "M607": Code(
        "program does not fit the instruction memory",
        "A core has more instructions than `memory.instruction_bytes` of the target holds. Loops "
        "count once. The program still runs on the reference machine, which has no such limit.",
    ),
    "M609": Code(
        "rows stand in global memory",
        "Moving data across rows, and products of two computed tensors, may need more of a value "
        "than a core can hold. Its largest buffers then stand in global memory "
        "(`@global`), as long queues do; each access crosses a link of it, which time and energy "
        "count. `memory.core_bytes` of the target gives the cores more memory of their own.",
    ),
    "M604": Code(
        "ADC too narrow for an exact mapping",
        "Some stored column can give a sum beyond the largest code of the ADC, so the program "
        "would not compute the model's integers. A wider ADC, fewer OU rows or flipped columns "
        "(`weights.flip_columns`) make it exact; `--allow-clipping` compiles it as it is.",
    ),
}

# ------------------------------------------------------------------ R7xx: runtime input
RUNTIME: Final[dict[str, Code]] = {
    "R701": Code(
        "wrong inputs of a run",
        "The arrays given to a run do not fit the program's input tensors: a name is missing or "
        "unknown, an element type differs, a shape is not [images, rows, columns, channels], or "
        "the inputs differ in their number of images. All findings are listed at once.",
    ),
    "R702": Code(
        "unreadable data file",
        "Samples are read from npz files of plain number arrays, one array per model input and "
        "`labels` where there are any. Arrays of Python objects are refused.",
    ),
    "R703": Code(
        "samples do not fit the model",
        "Each array must be named like a model input and have its shape behind a leading axis of "
        "samples; `labels` may stand beside them. Floats must be finite.",
    ),
    "R704": Code(
        "no data for a check",
        "A warning: without samples a program is compared with onnxruntime on seeded random noise. "
        "The comparison of integers is as strict as with real samples, but the agreement with the "
        "float model says nothing about real ones.",
    ),
    "R705": Code(
        "no reference model",
        "A compiled program folder holds `reference.onnx`, the integer model that the program must "
        "equal. Without it, or when it is damaged, there is nothing to verify against.",
    ),
    "R706": Code(
        "no program for this input shape",
        "A folder of programs for several input shapes takes the one that the samples, or "
        "`--input-shape`, ask for. The message names the shapes there are.",
    ),
    "R707": Code(
        "samples of an input that was bound",
        "An input of the model was given values by `pimc compile --bind`, so it is a weight that "
        "the crossbars hold and no input of the program. Other values need another compile.",
    ),
    "R710": Code(
        "region out of bounds",
        "An instruction touched elements outside of a buffer or tensor. The verifier finds this "
        "before a run; a program that was never verified meets it here.",
    ),
    "R711": Code(
        "deadlock",
        "Every core that still has instructions waits for another one: to receive from an empty "
        "channel or to send into a full one. The message lists each core, its instruction and "
        "the channel.",
    ),
    "R712": Code(
        "message of the wrong size",
        "A core received a message with more or fewer elements than its region holds, or the "
        "messages of a channel do not make up the tensor that the channel says it carries.",
    ),
    "R714": Code(
        "no such row",
        "A lookup was given a number that names no row of its table: a token beyond the vocabulary "
        "of the model.",
    ),
    "R713": Code(
        "program and machine do not fit",
        "The program names a buffer, matrix, table, tensor or channel that it does not declare, "
        "or an instruction that the machine does not know. The verifier finds this before a run.",
    ),
    "R715": Code(
        "host partition cannot run",
        "A `host` instruction needs onnxruntime to run the ONNX model of its partition. Nobody was "
        "given to do it, the model was refused or failed on these values, or its results have "
        "other types and shapes than the program declares.",
    ),
    "R720": Code(
        "forced kernel or path is not available",
        "PIMC_KERNEL, PIMC_PATH or PIMC_STREAMS asks for something that does not exist here: an "
        "unknown word, the C kernel where it was not built, a path that cannot be exact for a "
        "matrix of the program, or C for a program that it does not take as a whole. `pimc doctor` "
        "shows what there is; `auto` always works unless the C kernel is older than its source.",
    ),
    "R721": Code(
        "process ended early",
        "A process that runs a share of the images of --jobs ended without an answer. When memory "
        "runs out, the system ends processes: run with fewer --jobs, or fewer --samples.",
    ),
    "R730": Code(
        "columns without a place",
        "Stuck cells and wire resistance depend on where a cell stands in its crossbar, but the "
        "program does not place every stored column.",
    ),
    "R731": Code(
        "wrong fault map",
        "A fault map is an npz file of five integer arrays of one length: core, crossbar (within "
        "the core), row, column, and stuck, which is 0 for high resistance and 1 for low.",
    ),
    "R732": Code(
        "ADC range without samples",
        "The range of the ADC is to be taken from the sums that samples give, and no samples were "
        "run. `nonideal.adc.range` may also be `unit` or `proof`, which need none.",
    ),
    "R733": Code(
        "no imperfection to simulate",
        "A run with noise needs a device that is not ideal: numbers in the `[nonideal]` section "
        "of the target, or `--device KEY=VALUE`, such as `--device programming.sigma=0.05`.",
    ),
}

# ------------------------------------------------------------------ X8xx: verification failed
CHECK: Final[dict[str, Code]] = {
    "X801": Code(
        "blocks do not give the weights back",
        "After every compile the cells, selectors and routes of the program are folded back into a "
        "matrix and compared with the integer weights of the model. They differ here, so the "
        "program was not written. This is a bug in pimc.",
    ),
    "X802": Code(
        "a pass changed a weight",
        "After every exact mapping pass the blocks of each layer are folded back and compared with "
        "its integer weights. They differ here, so nothing was written. This is a bug in the pass "
        "that the message names.",
    ),
}

# ------------------------------------------------------------------ U9xx: usage
USAGE: Final[dict[str, Code]] = {
    "U901": Code(
        "wrong option value",
        "The value of a command line option cannot be read; the message shows the expected form.",
    ),
    "U902": Code(
        "unknown name",
        "There is no mapping, layer or error code of this name; the message lists those there are.",
    ),
    "U903": Code(
        "comments would be lost",
        "`pimc fmt` writes the canonical form of a program, which has no comments. A text that has "
        "some is left alone unless `--drop-comments` is given.",
    ),
    "U904": Code(
        "a package for this command is missing",
        "Some commands need a package that pimc itself can do without; the message names it and "
        "the extra that installs it.",
    ),
    "U950": Code(
        "wrong compression option",
        "A compression reads `kind:key=value,key=value`, for example `pattern:keep=4,patterns=8`, "
        "`identical:t=0.5`, `similar:t=0.25,joint=yes` or `channel:keep=0.65`. The message names "
        "the kinds and keys that exist.",
    ),
    "U951": Code(
        "data does not fit the compression",
        "Compression runs the float model on calibration images: one array [images, ...] for each "
        "input, all with the same number of images, and labels, where given, one for each image.",
    ),
    "U952": Code(
        "nothing to compress",
        "No layer of the model is of the kind that the compression works on, such as 3x3 "
        "convolutions for pattern pruning.",
    ),
}

# ------------------------------------------------------------------ I9xx: internal
INTERNAL: Final[dict[str, Code]] = {
    "I999": Code(
        "internal error",
        "pimc broke one of its own rules. This is a bug in pimc, whatever the input was; please "
        "report it with the command line and, if you can, the input file.",
    ),
}

# first letter and digit of a code -> (what the family is about, exit code, its entries)
FAMILIES: Final[dict[str, tuple[str, int, dict[str, Code]]]] = {
    "T1": ("target description", EXIT_REJECTED, TARGET),
    "F2": ("ONNX model", EXIT_REJECTED, FRONTEND),
    "E3": ("ISA text", EXIT_REJECTED, SYNTAX),
    "V4": ("program verifier", EXIT_REJECTED, VERIFIER),
    "C5": ("container and data files", EXIT_REJECTED, CONTAINER),
    "M6": ("mapping and fit", EXIT_DOES_NOT_FIT, MAPPING),
    "R7": ("runtime input", EXIT_REJECTED, RUNTIME),
    "X8": ("verification", EXIT_VERIFICATION_FAILED, CHECK),
    "U9": ("usage", EXIT_USAGE, USAGE),
    "I9": ("internal", EXIT_INTERNAL, INTERNAL),
}


def find_code(code: str) -> Code | None:
    """Return the registered entry of `code`, or None when there is none."""
    family = FAMILIES.get(code[:2])
    return family[2].get(code) if family else None


def exit_code_of(code: str) -> int:
    """Return the exit code of a registered `code`: its own, else its family's.

    Raises KeyError for an unregistered code.
    """
    entry = find_code(code)
    if entry is None:
        raise KeyError(code)
    return FAMILIES[code[:2]][1] if entry.exit_code is None else entry.exit_code


def all_codes() -> dict[str, Code]:
    """Return every registered code in order of the families, sorted inside a family."""
    return {code: entries[code] for _, _, entries in FAMILIES.values() for code in sorted(entries)}
