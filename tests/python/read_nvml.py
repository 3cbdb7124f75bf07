"""Reads the simulated NVML library with NVIDIA's own Python binding (nvidia-ml-py).

    read_nvml.py LIBRARY ACCOUNT

The collector and the simulator share one Rust description of NVML's structs; NVIDIA wrote this one. So a layout that
both have wrong shows here. Every value must be what the library's account says that it served, or what its scenario
says. Exit 0 when all agree.
"""

import json
import os
import subprocess
import sys
import tempfile
import tomllib


def read(library, account):
    import pynvml as nvml

    import nvml_health

    with open(f"{library}.toml", "rb") as file:
        scenario = tomllib.load(file)

    def served(call, argument=None):
        answers = [json.loads(line) for line in open(account)]
        found = [a for a in answers if a["call"] == call and a["arg"] == argument and a["rc"] == 0]
        return found[-1]["value"]

    def equal(what, got, wanted):
        print(f"{what}: {got}")
        if got != wanted:
            sys.exit(f"{what}: the binding reads {got!r}, the library served {wanted!r}")

    def refused(what, code, call):
        try:
            call()
        except nvml.NVMLError as error:
            equal(f"{what}, code", error.value, code)
        else:
            sys.exit(f"{what}: no error")

    nvml.nvmlInit()
    equal("driver", nvml.nvmlSystemGetDriverVersion(), served("nvmlSystemGetDriverVersion"))
    gpus = scenario["gpu"]
    equal("devices", nvml.nvmlDeviceGetCount(), len(gpus))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    equal("name", nvml.nvmlDeviceGetName(gpu), served("nvmlDeviceGetName"))
    equal("uuid", nvml.nvmlDeviceGetUUID(gpu), served("nvmlDeviceGetUUID"))
    pci = nvml.nvmlDeviceGetPciInfo(gpu)
    equal("pci", (pci.busId, pci.bus), (served("nvmlDeviceGetPciInfo_v3"), 0x1B))
    equal("energy", nvml.nvmlDeviceGetTotalEnergyConsumption(gpu), served("nvmlDeviceGetTotalEnergyConsumption"))
    equal("power", nvml.nvmlDeviceGetPowerUsage(gpu), served("nvmlDeviceGetPowerUsage"))
    equal("temperature", nvml.nvmlDeviceGetTemperature(gpu, 0), served("nvmlDeviceGetTemperature", 0))
    temperature = nvml.nvmlDeviceGetTemperatureV(gpu, 0)
    equal("temperature of the versioned call", temperature, served("nvmlDeviceGetTemperatureV", 0))
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    told = served("nvmlDeviceGetUtilizationRates")
    equal("utilization", {"gpu": rates.gpu, "memory": rates.memory}, told)
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    told = served("nvmlDeviceGetMemoryInfo")
    equal("memory", {"total": memory.total, "free": memory.free, "used": memory.used}, told)
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
    names = ("total", "reserved", "free", "used")
    equal("memory v2", {name: getattr(memory, name) for name in names}, served("nvmlDeviceGetMemoryInfo_v2"))
    read_fields(nvml, gpu, equal, served)
    refused("fan of the second GPU", 3, lambda: nvml.nvmlDeviceGetFanSpeed_v2(nvml.nvmlDeviceGetHandleByIndex(1), 0))
    refused("a function that is not simulated", 13, lambda: nvml.nvmlDeviceGetPcieThroughput(gpu, 0))
    read_events(nvml, gpu, equal, refused)
    nvml_health.read(nvml, gpus, equal, served, refused)
    nvml.nvmlShutdown()


def read_fields(nvml, gpu, equal, served):
    members = {1: "uiVal", 3: "ullVal", 5: "siVal"}
    asked = [(82, 0), (83, 0), (186, 0), (186, 1), (74, 0), (186, 3)]
    for (field, scope), value in zip(asked, nvml.nvmlDeviceGetFieldValues(gpu, asked)):
        equal("field", (value.fieldId, value.scopeId), (field, scope))
        if (field, scope) == (186, 3):
            equal("an unknown scope, code", value.nvmlReturn, 3)
        else:
            got = getattr(value.value, members[value.valueType])
            equal(f"field {field} scope {scope}", (value.nvmlReturn, got), (0, served(f"field:{field}:{scope}")))


def read_events(nvml, gpu, equal, refused):
    events = nvml.nvmlEventSetCreate()
    nvml.nvmlDeviceRegisterEvents(gpu, nvml.nvmlEventTypeXidCriticalError, events)
    event = nvml.nvmlEventSetWait_v2(events, 1000)
    equal("event", (event.eventType, event.eventData), (nvml.nvmlEventTypeXidCriticalError, 79))
    equal("event's GPU", nvml.nvmlDeviceGetUUID(event.device), nvml.nvmlDeviceGetUUID(gpu))
    refused("a wait for another event", 10, lambda: nvml.nvmlEventSetWait_v2(events, 50))
    nvml.nvmlEventSetFree(events)


def main():
    library, account = (os.path.realpath(path) for path in sys.argv[1:3])
    if len(sys.argv) == 4:
        return read(library, account)
    # The binding loads the library by name, as everybody does.
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(library, os.path.join(folder, "libnvidia-ml.so.1"))
        command = [sys.executable, __file__, library, account, "read"]
        return subprocess.run(command, env={**os.environ, "LD_LIBRARY_PATH": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
