.PHONY: build gpu test race ci golden performance

build:            ## the binary, with the commit in it
	go build -buildvcs=true -o igcsearch ./cmd/igcsearch

gpu:              ## the binary with GPU support; needs CUDA
	go build -buildvcs=true -tags gpu -o igcsearch ./cmd/igcsearch

test:
	go test ./...

race:             ## the packages with concurrency
	go test -race -short ./search ./store ./trainer ./trainer/graph ./trainer/dataset

ci:
	.ci/run

golden:           ## rewrite the golden files after looking at why they changed
	go test ./cmd/igcsearch ./plots ./studies -update

PEER ?=           # e.g. "python3 trainer/testdata/torch_step.py"; empty: without a peer
performance: build ## the measurements of docs/performance.md, about 12 minutes with PyTorch
	./igcsearch version
	./igcsearch bench --pairs fig3a,fig3b --steps 21 $(if $(strip $(PEER)),--peer "$(strip $(PEER))")
	./igcsearch bench --scaling --pairs 64x1,40x2,12x6,1x23,41x5,1x44 --steps 9
	-IGC_ISA=avx2 ./igcsearch bench --pairs 64x1,40x2,12x6,1x23 --steps 5
	IGC_ISA=portable ./igcsearch bench --pairs 64x1,40x2,12x6,1x23 --steps 5
