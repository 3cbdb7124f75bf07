"""Reads what a GPU tells of its health, links, place and division, with NVIDIA's own binding; part of read_nvml.py.

What is wanted is what the scenario says: `gpus` are its tables, in the order of the indexes.
"""

import ctypes


def read(nvml, gpus, equal, served, refused):
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(len(gpus))]
    read_memory(nvml, handles[0], gpus[0], equal, refused)
    read_pages(nvml, handles, gpus[2], equal, refused)
    read_power(nvml, handles[0], equal, served)
    read_links(nvml, handles[0], gpus[0], equal, refused)
    read_place(nvml, handles[0], gpus[0], equal)
    read_mig(nvml, handles, gpus[1], equal, refused)
    read_metrics(nvml, handles, equal, served)


def fields(nvml, gpu, asked):
    """Return code and value of each field."""
    members = {1: "uiVal", 3: "ullVal", 5: "siVal"}
    values = nvml.nvmlDeviceGetFieldValues(gpu, asked)
    return [(v.nvmlReturn, getattr(v.value, members[v.valueType]) if v.nvmlReturn == 0 else None) for v in values]


def read_memory(nvml, gpu, says, equal, refused):
    c = says["counters"]
    sram = c["sram_parity"] + c["sram_secded"]
    equal("ECC mode", nvml.nvmlDeviceGetEccMode(gpu), [1, 1])
    for kind, dram, of_sram in ((0, c["dram_corrected"], c["sram_corrected"]), (1, c["dram_uncorrected"], sram)):
        for counter in (0, 1):
            equal("ECC errors", nvml.nvmlDeviceGetTotalEccErrors(gpu, kind, counter), dram + of_sram)
            equal("ECC errors of DRAM", nvml.nvmlDeviceGetMemoryErrorCounter(gpu, kind, counter, 2), dram)
            equal("ECC errors of SRAM", nvml.nvmlDeviceGetMemoryErrorCounter(gpu, kind, counter, 7), of_sram)
    refused("ECC errors of L1", 3, lambda: nvml.nvmlDeviceGetMemoryErrorCounter(gpu, 0, 0, 0))
    rows = (c["remapped_corrected"], c["remapped_uncorrected"])
    equal("remapped rows", nvml.nvmlDeviceGetRemappedRows(gpu), (*rows, 1, 0))
    remaps = nvml.c_nvmlRemappedRowsInfo_v2_t()
    nvml.nvmlDeviceGetRemappedRows_v2(gpu, ctypes.byref(remaps))
    told = [getattr(remaps, name) for name, _ in remaps._fields_]
    equal("remapped rows v2", told, [rows[0], 0, rows[1], c["remap_inactive_uncorrected"], 1, 0])
    histogram = nvml.nvmlDeviceGetRowRemapperHistogram(gpu)
    names = ("max", "high", "partial", "low", "none")
    equal("histogram", [getattr(histogram, name) for name in names], [640 - sum(rows), sum(rows), 0, 0, 0])
    status = nvml.c_nvmlEccSramErrorStatus_v1_t()
    nvml.nvmlDeviceGetSramEccErrorStatus(gpu, ctypes.byref(status))
    now = [c["sram_parity"], c["sram_secded"], c["sram_corrected"]]
    told = [getattr(status, name) for name, _ in status._fields_[1:]]
    equal("SRAM errors", told, now + now + [sram // 4, sram - sram // 4, 0, 0, 0, 1])
    equal("repairs", nvml.nvmlDeviceGetRepairStatus(gpu), [1, 0])
    equal("beyond repair", nvml.nvmlDeviceGetUnrepairableMemoryFlag_v1(gpu), 1)
    equal("time run", nvml.nvmlDeviceGetBBXTimeData_v1(gpu).timeRun, says["time_run_seconds"])
    equal("InfoROM", nvml.nvmlDeviceGetInforomConfigurationChecksum(gpu), 0x5A17C0DE)
    ids = [142, 143, 144, 145, 230, 173, 180, 94]
    told = [*rows, 1, 0, says["recovery_action"], 0, c["pcie_fatal"], c["pcie_replay"]]
    equal("fields of health", fields(nvml, gpu, ids), [(0, value) for value in told])


def read_pages(nvml, handles, says, equal, refused):
    count = int(says["counters"]["retired_uncorrected"])
    equal("retired pages", len(nvml.nvmlDeviceGetRetiredPages(handles[2], 1)), count)
    pages = nvml.nvmlDeviceGetRetiredPages_v2(handles[2], 1)
    equal("retired pages v2", [page["timestamp"] for page in pages], [1_700_000_000 + n for n in range(count)])
    equal("pages pending", nvml.nvmlDeviceGetRetiredPagesPendingStatus(handles[2]), 0)
    of_l1 = nvml.nvmlDeviceGetMemoryErrorCounter(handles[2], 0, 1, 0)
    equal("ECC errors of L1", of_l1, says["counters"]["l1_corrected"])
    refused("retired pages of a GPU that remaps rows", 3, lambda: nvml.nvmlDeviceGetRetiredPages(handles[0], 1))


def read_power(nvml, gpu, equal, served):
    limits = (nvml.nvmlDeviceGetPowerManagementLimit(gpu), nvml.nvmlDeviceGetPowerManagementDefaultLimit(gpu))
    equal("power limits", limits, (500_000, 700_000))
    equal("power limits that can be set", nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu), [210_000, 700_000])
    margin = nvml.nvmlDeviceGetMarginTemperature(gpu)
    equal("margin", margin, served("nvmlDeviceGetMarginTemperature")["marginTemperature"])
    thresholds = [nvml.nvmlDeviceGetTemperatureThreshold(gpu, threshold) for threshold in range(4)]
    equal("thresholds", thresholds, [92, 87, 95, 85])
    equal("rounds per minute", nvml.nvmlDeviceGetFanSpeedRPM(gpu), served("nvmlDeviceGetFanSpeedRPM", 0)["speed"])
    equal("highest clock", nvml.nvmlDeviceGetMaxClockInfo(gpu, 1), 1980)
    bar = nvml.nvmlDeviceGetBAR1MemoryInfo(gpu)
    told = served("nvmlDeviceGetBAR1MemoryInfo")
    equal("BAR1", {name: getattr(bar, name) for name in told}, told)
    asked = [(185, 0), (186, 1), (186, 2), (193, 0), (194, 0)]
    got = fields(nvml, gpu, asked)
    equal("fields of power", [value for _, value in got], [served(f"field:{field}:{scope}") for field, scope in asked])
    equal("a field below zero", [value for _, value in got[3:]], [-8, -2])
    # Driver 570 has the times that heat took by other numbers than the binding, which is newer.
    equal("fields by the driver's number", [code for code, _ in fields(nvml, gpu, [251, 253, 269, 301])], [0, 0, 3, 3])


def read_links(nvml, gpu, says, equal, refused):
    pcie = (nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu), nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu))
    equal("PCIe", list(pcie), says["pcie"])
    equal("PCIe replays", nvml.nvmlDeviceGetPcieReplayCounter(gpu), says["counters"]["pcie_replay"])
    link = says["link"][0]
    number, counts = link["link"], link["counters"]
    equal("links up", [nvml.nvmlDeviceGetNvLinkState(gpu, n) for n in (number, 9)], [1, 0])
    equal("NVLink version", nvml.nvmlDeviceGetNvLinkVersion(gpu, number), 6)
    equal("NVLink replays", nvml.nvmlDeviceGetNvLinkErrorCounter(gpu, number, 0), counts["nvlink_replay"])
    equal("NVLink CRC", nvml.nvmlDeviceGetNvLinkErrorCounter(gpu, number, 2), counts["nvlink_crc_flit"])
    equal("other end", nvml.nvmlDeviceGetNvLinkRemotePciInfo(gpu, number).busId, "00000000:08:00.0")
    equal("kind of other end", nvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, number), 2)
    refused("a link that is not there", 2, lambda: nvml.nvmlDeviceGetNvLinkState(gpu, 18))
    asked = [(161, number), (163, number), (161, 0), (165, 9), (164, number), (91, 0), (170, 0)]
    told = [counts["nvlink_replay"], counts["nvlink_crc_flit"], 0, 0, 26_562, 18]
    equal("fields of links", fields(nvml, gpu, asked), [(0, value) for value in told] + [(3, None)])
    for info in (nvml.c_nvmlNvLinkInfo_v1_t(), nvml.c_nvmlNvLinkInfo_v2_t()):
        info.isNvleEnabled = 9
        nvml.nvmlDeviceGetNvLinkInfo(gpu, ctypes.byref(info))
        equal("encrypted links", info.isNvleEnabled, 0)


def read_place(nvml, gpu, says, equal):
    place = says["platform"]
    for info in (nvml.c_nvmlPlatformInfo_v1_t(), nvml.c_nvmlPlatformInfo_v2_t()):
        nvml.nvmlDeviceGetPlatformInfo(gpu, ctypes.byref(info))
        # Both versions have the same bytes by different names; the last five of them are one each.
        names = [name for name, _ in info._fields_]
        told = [place[name] for name in ("slot", "tray", "host", "peer_type", "module")]
        equal("platform", [ord(getattr(info, name)) for name in names[3:]], told)
        equal("chassis", getattr(info, names[2]), place["chassis_serial"])
    equal("module", nvml.nvmlDeviceGetModuleId(gpu), place["module"])
    fabric = says["fabric"]
    for info in (nvml.c_nvmlGpuFabricInfo_t(), nvml.c_nvmlGpuFabricInfo_v2_t(), nvml.c_nvmlGpuFabricInfo_v3_t()):
        call = nvml.nvmlDeviceGetGpuFabricInfoV if hasattr(info, "version") else nvml.nvmlDeviceGetGpuFabricInfo
        call(gpu, ctypes.byref(info))
        told = [info.state, info.cliqueId, getattr(info, "healthMask", fabric["health_mask"]), info.status]
        equal("fabric", told, [fabric["state"], fabric["clique"], fabric["health_mask"], 0])
        equal("health of the fabric", getattr(info, "healthSummary", 2), fabric["health_summary"])
    equal("architecture", nvml.nvmlDeviceGetArchitecture(gpu), nvml.NVML_DEVICE_ARCH_HOPPER)
    equal("brand", nvml.nvmlDeviceGetBrand(gpu), nvml.NVML_BRAND_NVIDIA)
    equal("board", (nvml.nvmlDeviceGetBoardId(gpu), nvml.nvmlDeviceGetMinorNumber(gpu)), (0x1B00, 0))
    equal("GSP", nvml.nvmlDeviceGetGspFirmwareVersion(gpu), nvml.nvmlSystemGetDriverVersion().encode())
    equal("persistence", nvml.nvmlDeviceGetPersistenceMode(gpu), 1)
    equal("processes", [p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)], [40_000, 40_001])


def read_mig(nvml, handles, says, equal, refused):
    gpu = handles[1]
    equal("MIG", (nvml.nvmlDeviceGetMigMode(handles[0]), nvml.nvmlDeviceGetMigMode(gpu)), ([0, 0], [1, 1]))
    equal("instances at most", nvml.nvmlDeviceGetMaxMigDeviceCount(gpu), 7)
    for index, mig in enumerate(says["mig"]):
        handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        ids = (nvml.nvmlDeviceGetGpuInstanceId(handle), nvml.nvmlDeviceGetComputeInstanceId(handle))
        equal("ids of an instance", ids, (mig["gpu_instance"], mig["compute_instance"]))
        attributes = nvml.nvmlDeviceGetAttributes(handle)
        got = (attributes.memorySizeMB, attributes.gpuInstanceSliceCount)
        equal("size of an instance", got, (mig["memory_mb"], mig["slices"]))
        equal("is one", [nvml.nvmlDeviceIsMigDeviceHandle(each).value for each in (handle, gpu)], [1, 0])
        whole = nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        equal("GPU of an instance", nvml.nvmlDeviceGetUUID(whole), nvml.nvmlDeviceGetUUID(gpu))
        uuid = nvml.nvmlDeviceGetUUID(handle)
        equal("instance by its UUID", nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByUUID(uuid)), uuid)
    refused("an instance that is not there", 6, lambda: nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 5))
    refused("power of an instance", 3, lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    refused("utilization of a divided GPU", 3, lambda: nvml.nvmlDeviceGetUtilizationRates(gpu))


def read_metrics(nvml, handles, equal, served):
    gpu = handles[0]
    support = [nvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice for handle in handles]
    equal("profiling metrics", support, [1, 1, 0])
    samples = [nvml.nvmlGpmSampleAlloc() for _ in range(2)]
    for sample in samples:
        nvml.nvmlGpmSampleGet(gpu, sample)
    asked = nvml.c_nvmlGpmMetricsGet_t()
    asked.version, asked.numMetrics = nvml.NVML_GPM_METRICS_GET_VERSION, 3
    asked.sample1, asked.sample2 = samples
    for metric, number in zip(asked.metrics, (1, 61, 400)):
        metric.metricId = number
    nvml.nvmlGpmMetricsGet(asked)
    equal("codes of metrics", [metric.nvmlReturn for metric in asked.metrics[:3]], [0, 0, 3])
    for metric in asked.metrics[:2]:
        equal(f"metric {metric.metricId}", metric.value, served(f"gpm:{metric.metricId}"))
    equal("unit", asked.metrics[1].metricInfo.unit, b"MiB/sec")
    for sample in samples:
        nvml.nvmlGpmSampleFree(sample)
