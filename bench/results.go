package main

import (
	"encoding/json"
	"os"
	"time"
)

// results is all that a run found out: the page is rendered from it.
type results struct {
	Taken    time.Time          `json:"taken"`
	Took     string             `json:"took"`
	Settings settings           `json:"settings"`
	Machine  machine            `json:"machine"`
	Versions map[string]string  `json:"versions"` // of servers, runtimes and contestants' modules
	Of       map[string]*series `json:"contestants"`
}

// series is what was measured of one contestant: one sample a round.
type series struct {
	Tasks    map[measure]int      `json:"tasks,omitzero"` // how many were queued for processing
	Samples  map[measure][]sample `json:"samples"`
	Recovery []recovered          `json:"recovery,omitzero"`
}

// sample is one measurement.
type sample struct {
	// Value is tasks a second, or bytes a task.
	Value float64 `json:"value,omitzero"`
	// ClientCPU and ServerCPU are microseconds of CPU time a task; 0 if not measured.
	ClientCPU float64 `json:"client_cpu_us,omitzero"`
	ServerCPU float64 `json:"server_cpu_us,omitzero"`
	// PickupMS are all samples of a pick-up measurement.
	PickupMS []float64 `json:"pickup_ms,omitzero"`
}

// recovered tells how long a task of a killed worker waited for another one.
type recovered struct {
	Seconds float64 `json:"seconds"`
	Capped  bool    `json:"capped,omitzero"` // it was still waiting then
}

// values returns the Value of every sample of m.
func (s *series) values(m measure) []float64 {
	var xs []float64
	for _, x := range s.Samples[m] {
		xs = append(xs, x.Value)
	}
	return xs
}

// cpu returns the CPU time a task of every sample of m, server and client together.
func (s *series) cpu(m measure) []float64 {
	var xs []float64
	for _, x := range s.Samples[m] {
		if x.ClientCPU > 0 {
			xs = append(xs, x.ClientCPU+x.ServerCPU)
		}
	}
	return xs
}

// pickups returns all pick-up samples of all rounds.
func (s *series) pickups() []float64 {
	var xs []float64
	for _, x := range s.Samples[pickup] {
		xs = append(xs, x.PickupMS...)
	}
	return xs
}

func readResults(path string) (*results, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(results)
	return r, json.Unmarshal(b, r)
}

func (r *results) write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
