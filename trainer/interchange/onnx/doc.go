// Package onnx has the messages of an ONNX file (https://onnx.ai). onnx.proto is that of ONNX 1.12, unchanged, under the
// Apache License 2.0; onnx.pb.go is generated from it by protoc 3.21 and protoc-gen-go 1.36.
package onnx

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go_opt=Monnx.proto=igcsearch/trainer/interchange/onnx onnx.proto
