package status

import (
	"math"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// The events' data, as openapi.yaml describes it.

type statusEvent struct {
	At              time.Time      `json:"at"`
	Version         string         `json:"version"`
	StartedAt       time.Time      `json:"started_at"`
	Level           string         `json:"level"`
	Summary         string         `json:"summary"`
	Advice          string         `json:"advice"`
	DeadlineSeconds float64        `json:"deadline_seconds"`
	Store           storeState     `json:"store"`
	Throughput      throughput     `json:"throughput"`
	Queue           queueState     `json:"queue"`
	Last            counts         `json:"last_15_minutes"`
	SinceStart      counts         `json:"since_start"`
	Failures        []failureGroup `json:"failures"`
	FailuresLeftOut int64          `json:"failures_left_out"`
	Times           timesOf        `json:"times"`
	Pool            pool           `json:"pool"`
	Troubles        []push.Trouble `json:"troubles"`
}

type storeState struct {
	URL       string `json:"url"`
	Reachable bool   `json:"reachable"`
}

type throughput struct {
	Bytes  float64 `json:"bytes_per_second"`
	Pushes float64 `json:"pushes_per_second"`
}

type queueState struct {
	Queued   line `json:"queued"`
	Running  line `json:"running"`
	Retrying int  `json:"retrying"`
}

type line struct {
	push.Line
	Oldest float64 `json:"oldest_seconds"`
}

func lineOf(l push.Line) line { return line{l, secondsOf(l.Oldest)} }

// failureGroup is the pushes that failed for one cause in the last 15 minutes.
type failureGroup struct {
	Code    push.Code  `json:"code"`
	Bucket  string     `json:"bucket"`
	Pushes  int64      `json:"pushes"`
	Summary string     `json:"summary"`
	Advice  string     `json:"advice"`
	Newest  failedPush `json:"newest"`
}

// leftOut returns how many pushes failed that are in none of the groups.
func leftOut(failed int64, groups []failureGroup) int64 {
	for _, g := range groups {
		failed -= g.Pushes
	}
	return failed
}

type timesOf struct {
	Bounds []float64 `json:"bounds_seconds"`
	Pushes []int64   `json:"pushes"`
}

type pool struct {
	Slots       int          `json:"slots"`
	SlotsInUse  int          `json:"slots_in_use"`
	Connections []connection `json:"connections"`
}

type connection struct {
	Number         int     `json:"number"`
	Address        string  `json:"address"`
	State          string  `json:"state"`
	Age            float64 `json:"age_seconds"`
	Requests       int64   `json:"requests"`
	RTT            float64 `json:"rtt_seconds"`
	Rate           float64 `json:"rate_bytes_per_second"`
	FirstRoundTrip int64   `json:"first_round_trip_bytes"`
	Warm           bool    `json:"warm"`
}

func poolOf(o push.Overview) pool {
	p := pool{o.Slots, o.SlotsInUse, make([]connection, 0, len(o.Connections))}
	for _, c := range o.Connections {
		state := "idle"
		if c.Busy {
			state = "busy"
		}
		p.Connections = append(p.Connections, connection{
			c.Number, c.Address, state, math.Round(c.Age.Seconds()), c.Requests, secondsOf(c.RTT), math.Round(c.Rate), c.FirstRoundTrip, c.Warm,
		})
	}
	return p
}

type pushesEvent struct {
	Pushes  []push.Receipt `json:"pushes"`
	LeftOut int            `json:"left_out"`
}

type historyEvent struct {
	Until       time.Time `json:"until"`
	StepSeconds float64   `json:"step_seconds"`
	Bytes       []int64   `json:"bytes_per_second"`
	Done        []float64 `json:"done_per_second"`
	Failed      []float64 `json:"failed_per_second"`
}
