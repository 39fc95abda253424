.PHONY: build gpu gpu-flags gpu-test gpu-checks gpu-waits gpu-tests gpu-verify emulator test race ci golden faults scale performance

build:            ## the binary, with the commit in it
	@echo "the first build takes some minutes, later ones seconds"
	go build -buildvcs=true -o igcsearch ./cmd/igcsearch

# Our header and our libcuda.a instead of a CUDA installation, with or without one on the machine: the flags come before
# cu's own. With other flags almost every package is compiled again. The library needs dlopen, which old C libraries keep apart.
GPU = CGO_CFLAGS="-O2 -I$(CURDIR)/trainer/gpu/driver/include" CGO_LDFLAGS="-O2 -L$(CURDIR)/build/gpu -Wl,--no-as-needed -ldl"

build/gpu/libcuda.a: trainer/gpu/driver/build.sh trainer/gpu/driver/shim.c trainer/gpu/driver/include/cuda.h
	trainer/gpu/driver/build.sh build/gpu

gpu-flags:        ## the flags of these targets, for a shell that shares what they compile
	@echo 'export $(GPU)'

gpu: build/gpu/libcuda.a ## igcsearch-gpu, which runs without CUDA too, on the processor
	@echo "the first build takes some minutes, later ones seconds"
	$(GPU) go build -tags gpu -buildvcs=true -ldflags '-s -w' -o igcsearch-gpu ./cmd/igcsearch

# On a busy machine the longest tests take more than the ten minutes that go test allows.
PATIENT = -timeout 30m
# The parts of gpu-test and gpu-checks use one core each most of the time: make -j runs them side by side. The kernels are no
# part of what go test takes for the inputs of a test: no cached results.
PARTS = gpu-test-package gpu-test-sizes gpu-test-programs gpu-test-race gpu-checks-random gpu-checks-reverse
.PHONY: $(PARTS)
$(PARTS): build/gpu/libcuda.a

gpu-test: gpu-test-package gpu-test-sizes gpu-test-programs gpu-test-race ## the tests with tag gpu, on the emulated GPU; on a real one with IGC_REQUIRE_GPU=1

gpu-test-package:
	$(GPU) go test -count=1 $(PATIENT) -tags gpu ./trainer/gpu/...
gpu-test-sizes:
	IGC_REAL_SIZES=1 $(GPU) go test -count=1 $(PATIENT) -tags gpu -run LossesAtRealSizes ./trainer/gpu
gpu-test-programs:
	$(GPU) go test -count=1 $(PATIENT) -tags gpu -run GPU ./trainer ./trainer/bench ./cmd/igcsearch
gpu-test-race:
	$(GPU) go test -count=1 $(PATIENT) -race -tags gpu -run 'SameBits|GPUResult|Fault' ./trainer/gpu ./trainer

gpu-checks: gpu-checks-random gpu-checks-reverse ## the kernels in other orders of blocks and threads, and with races and undefined behaviour seen

# What is left out has orders of its own, or is about memory.
CHECKS = $(GPU) go test -count=1 $(PATIENT) -tags gpu -skip 'KeepToTheirBuffers|WrongBuffers|OrderOfBlocks|TestMemory' ./trainer/gpu
gpu-checks-random:
	IGC_EMULATED_ORDER=random IGC_EMULATED_CHECKED=1 $(CHECKS)
gpu-checks-reverse:
	IGC_EMULATED_ORDER=reverse $(CHECKS)

gpu-waits: build/gpu/libcuda.a ## removes each wait of trainer/gpu in turn: a test must fail
	IGC_WAITS=1 $(GPU) go test -count=1 $(PATIENT) -tags gpu -run TestEveryWaitIsNeeded -v ./trainer/gpu

gpu-tests: gpu ## test programs to be carried to a machine with a GPU
	$(GPU) go test -c -tags gpu -ldflags '-s -w' -o build/gpu/gpu.test ./trainer/gpu
	$(GPU) go test -c -tags gpu -ldflags '-s -w' -o build/gpu/trainer.test ./trainer
	gzip -kf igcsearch-gpu build/gpu/gpu.test build/gpu/trainer.test

gpu-verify:       ## on a machine with a GPU: is it right, and how fast; the tables of docs/gpu.md
	trainer/gpu/verify.sh

emulator:         ## build/gpu/libigc_emulated.so, for IGC_CUDA_LIBRARY
	trainer/gpu/emulator/build.sh build/gpu

test:
	go test ./...

race:             ## the packages with concurrency
	go test -race -short -shuffle=on ./search/... ./store ./store/download ./store/spool ./trainer ./trainer/graph ./trainer/dataset ./cmd/igcsearch/live ./cmd/igcsearch/cluster ./cmd/igcsearch/progress ./store/fleet

ci:
	.ci/run

golden:           ## rewrite the golden files after looking at why they changed
	go test ./cmd/igcsearch ./plots ./studies ./trainer/kernel -update

faults:           ## the table of docs/reliability.md, about 6 minutes; its short form is part of test
	@echo "| fault | what happened |"; echo "| --- | --- |"
	@{ go test -tags faults -count=1 -timeout 30m -p 1 -v -run Faults ./store ./cmd/igcsearch || echo "FAILED: go test"; } | \
		awk '/^\|/ { print; fflush() } /FAIL|_test.go:/ { print > "/dev/stderr"; failed = 1 } END { exit failed }'

SCALE = go test ./store/fleet -count=1 -timeout 20m -run TestScale -v
scale:            ## the tables of docs/scale.md, about 7 minutes; a short form is part of test
	$(SCALE) -scale.workers 1000 -scale.trials 10000 -scale.epoch 10s
	$(SCALE) -scale.workers 1000 -scale.trials 10000 -scale.epoch 5s
	$(SCALE) -scale.workers 100 -scale.trials 1000 -scale.epochs 3 -scale.epoch 1ms

PRECISIONS ?= f32,bf16 # with AMX: f32,bf16,bf16-amx
PEER ?=           # e.g. "python3 trainer/testdata/torch_step.py"; empty: without a peer
# In Markdown, as docs/performance.md has it.
BENCH = ./igcsearch bench --format markdown
SCALING = $(BENCH) --scaling --pairs 64x1,40x2,12x6,1x23,41x5,1x44 --steps 9
performance: build ## the tables of docs/performance.md, about 10 minutes, 25 with PyTorch
	./igcsearch version
	$(BENCH) --pairs fig3a,fig3b --precision $(PRECISIONS) --steps 21 --peer-limit 10m $(if $(strip $(PEER)),--peer "$(strip $(PEER))")
	$(SCALING)
	$(SCALING) --precision bf16
	-IGC_ISA=avx2 $(BENCH) --pairs 64x1,40x2,12x6,1x23 --steps 5
	IGC_ISA=portable $(BENCH) --pairs 64x1,40x2,12x6,1x23 --steps 5
	-IGC_ISA=avx2 $(BENCH) --pairs 40x2 --precision bf16 --steps 1
	IGC_ISA=portable $(BENCH) --pairs 40x2 --precision bf16 --steps 1
