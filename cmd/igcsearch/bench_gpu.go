package main

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/space"
	"igcsearch/trainer/bench"
	"igcsearch/trainer/gpu"
)

// gpuBenchJSON is one measurement on a GPU as json prints it.
type gpuBenchJSON struct {
	System         string  `json:"system,omitempty"` // of --systems
	L              int     `json:"L"`
	M              int     `json:"M"`
	Params         int     `json:"params"` // of one block; of --systems of the network
	Batch          int     `json:"batch"`
	StepS          float64 `json:"step_s"` // alone
	ImagesPerS     float64 `json:"images_per_s"`
	Launches       int     `json:"launches"`
	DeviceBytes    int     `json:"device_bytes"`
	Trials         int     `json:"trials"` // at once, in what follows
	AllImagesPerS  float64 `json:"all_images_per_s"`
	AllGFLOPS      float64 `json:"all_gflops"`
	PeakGFLOPS     float64 `json:"peak_gflops"`
	AllGBPerS      float64 `json:"all_gb_per_s"`
	BandwidthGB    float64 `json:"bandwidth_gb_per_s"`
	Bound          string  `json:"bound"`
	Share          float64 `json:"share"` // of the bound
	Host           float64 `json:"host_cores_per_trial"`
	Device         string  `json:"device"`
	Driver         string  `json:"driver"`
	PeerStepS      float64 `json:"peer_step_s,omitempty"`
	PeerImagesPerS float64 `json:"peer_images_per_s,omitempty"`
}

// runGPUBench measures on the first of the chosen GPUs.
func runGPUBench(ctx context.Context, o benchOptions, info gpu.Info, stdout, stderr io.Writer) error {
	d, err := gpu.Open(info.Index)
	if err != nil {
		return err
	}
	names := []string{"L", "M"}
	if len(o.systems) > 0 {
		names = []string{"<network"}
	}
	header := append(names, "params", "alone (ms)", "images/s", "launches", "MB", "trials", "images/s in all",
		"TFLOP/s", "GB/s", "<bound", "% of it", "host (%)")
	if o.peer != "" {
		header = append(header, "peer images/s", "alone", "all")
	}
	t, all := report.NewTable(header...), means{}
	var last gpuBenchJSON
	one := func(s space.System) (any, []string, error) {
		r, err := bench.GPU(ctx, o.measure(s), d)
		if err != nil {
			return nil, nil, err
		}
		p := s.Pair()
		name, params, system := []string{strconv.Itoa(p.L), strconv.Itoa(p.M)}, p.Params(9), ""
		if len(o.systems) > 0 {
			system, params = s.String(), r.Params
			name = []string{system}
		}
		stepsPerS := r.AllPerSecond / float64(r.Batch)
		j := gpuBenchJSON{system, p.L, p.M, params, r.Batch, r.Step.Seconds(), r.AlonePerSecond(), r.Launches, r.Memory,
			r.Trials, r.AllPerSecond,
			r.Flops * stepsPerS / 1e9, r.PeakFlops / 1e9, float64(r.Bytes) * stepsPerS / 1e9, r.Bandwidth / 1e9,
			r.Bound(), r.Share(), r.Host, info.Name, info.Driver, 0, 0}
		row := append(name, strconv.Itoa(params), fmt.Sprintf("%.3f", 1e3*j.StepS),
			fmt.Sprintf("%.0f", all.add("alone", j.ImagesPerS)), strconv.Itoa(j.Launches),
			fmt.Sprintf("%.0f", float64(j.DeviceBytes)/1e6), strconv.Itoa(j.Trials),
			fmt.Sprintf("%.0f", all.add("all", j.AllImagesPerS)),
			fmt.Sprintf("%.1f", j.AllGFLOPS/1e3), fmt.Sprintf("%.0f", j.AllGBPerS), j.Bound,
			fmt.Sprintf("%.0f", 100*all.add("share", j.Share)), fmt.Sprintf("%.1f", 100*j.Host))
		if o.peer != "" {
			if j.PeerStepS, err = o.runPeer(ctx, p); err != nil {
				return nil, nil, err
			}
			j.PeerImagesPerS = float64(j.Batch) / j.PeerStepS
			row = append(row, fmt.Sprintf("%.0f", j.PeerImagesPerS),
				fmt.Sprintf("%.1f×", all.add("alone ratio", j.ImagesPerS/j.PeerImagesPerS)),
				fmt.Sprintf("%.1f×", all.add("all ratio", j.AllImagesPerS/j.PeerImagesPerS)))
		}
		last = j
		return j, row, nil
	}
	return o.each(stdout, stderr, t, one, func(done int) string {
		if k := len(names); done > 1 {
			row := make([]string, len(header))
			row[k+1], row[k+2], row[k+6], row[k+10] = "mean", fmt.Sprintf("%.0f", all.geometric("alone")),
				fmt.Sprintf("%.0f", all.geometric("all")), fmt.Sprintf("%.0f", 100*all.geometric("share"))
			if o.peer != "" {
				row[k+13], row[k+14] = fmt.Sprintf("%.1f×", all.geometric("alone ratio")),
					fmt.Sprintf("%.1f×", all.geometric("all ratio"))
			}
			t.Add(row...)
		}
		return fmt.Sprintf("batch %d, %s, %s, peak %.1f TFLOP/s, copy %.0f GB/s, median of %s; the mean is geometric",
			int(o.batch), info.Name, info.Driver, last.PeakGFLOPS/1e3, last.BandwidthGB,
			report.Count(int(o.steps), "step"))
	})
}
