.PHONY: build test race ci golden

build:            ## the binary, with the commit in it
	go build -buildvcs=true -o igcsearch ./cmd/igcsearch

test:
	go test ./...

race:             ## the packages with concurrency
	go test -race -short ./search ./store ./trainer ./trainer/graph

ci:
	.ci/run

golden:           ## rewrite the golden files after looking at why they changed
	go test ./cmd/igcsearch ./plots ./studies -update
