package datanode

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dfs-go/dfs-go/datanode/chunkstore"
)

// metrics has a registry of its own, so that several nodes live in one process.
type metrics struct {
	handler         http.Handler
	requests        *prometheus.CounterVec
	seconds         *prometheus.HistogramVec
	received        prometheus.Counter
	sent            prometheus.Counter
	forwardFailures prometheus.Counter
	heartbeats      *prometheus.CounterVec
	orderMetrics
	copied          prometheus.Counter
	scrubbedBytes   prometheus.Counter
	scrubbedChunks  prometheus.Counter
	scrubDamaged    prometheus.Counter
	scrubUnreadable prometheus.Counter
	scrubPasses     prometheus.Counter
}

func newMetrics(store *chunkstore.Store) *metrics {
	m := &metrics{
		requests:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dfs_datanode_requests_total", Help: "Requests answered, by route and HTTP status."}, []string{"route", "status"}),
		seconds:         prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "dfs_datanode_request_seconds", Help: "Time to answer a request.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8)}, []string{"route"}),
		received:        prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_received_bytes_total", Help: "Bytes of chunks received."}),
		sent:            prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_sent_bytes_total", Help: "Bytes of chunks sent to readers."}),
		forwardFailures: prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_forward_failures_total", Help: "Nodes of pipelines that did not get a chunk."}),
		heartbeats:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "dfs_datanode_heartbeats_total", Help: "Heartbeats sent, by result."}, []string{"result"}),
		orderMetrics:    newOrderMetrics(),
		copied:          prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_copied_bytes_total", Help: "Bytes of chunks received from other DataNodes by order."}),
		scrubbedBytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_scrubbed_bytes_total", Help: "Bytes of chunks read again to find damage."}),
		scrubbedChunks:  prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_scrubbed_chunks_total", Help: "Chunks read again to find damage."}),
		scrubDamaged:    prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_scrub_damaged_total", Help: "Chunks that the scrubber found damaged and put into quarantine."}),
		scrubUnreadable: prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_scrub_unreadable_total", Help: "Chunks that the disk did not let the scrubber read."}),
		scrubPasses:     prometheus.NewCounter(prometheus.CounterOpts{Name: "dfs_datanode_scrub_passes_total", Help: "Times that the scrubber came to the end of all chunks."}),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.seconds, m.received, m.sent, m.forwardFailures, m.heartbeats,
		m.copied, m.scrubbedBytes, m.scrubbedChunks, m.scrubDamaged, m.scrubUnreadable, m.scrubPasses)
	registry.MustRegister(m.orderMetrics.collectors()...)
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	gauge("dfs_datanode_chunks", "Chunks held.", func() float64 { return float64(store.Totals().Count) })
	gauge("dfs_datanode_chunk_bytes", "Bytes of chunks held.", func() float64 { return float64(store.Totals().Used) })
	gauge("dfs_datanode_free_bytes", "Bytes that chunks may still take; -1 when the disk does not answer.", func() float64 {
		space, err := store.Space()
		if err != nil {
			return -1
		}
		return float64(space.Free)
	})
	gauge("dfs_datanode_writable", "1 when new chunks are taken.", func() float64 {
		return boolean(store.Writable() == nil)
	})
	registry.MustRegister(newVolumeCollector(store))
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return m
}

func (m *metrics) answered(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

func (m *metrics) serve(w http.ResponseWriter, r *http.Request) error {
	m.handler.ServeHTTP(w, r)
	return nil
}

// volumeCollector tells of each data directory.
type volumeCollector struct {
	store                                                                *chunkstore.Store
	capacity, free, used, chunks, writable, gone, trashBytes, trashFiles *prometheus.Desc
	segmentBytes, deadBytes                                              *prometheus.Desc
}

func newVolumeCollector(store *chunkstore.Store) *volumeCollector {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("dfs_datanode_"+name, help, []string{"dir"}, nil)
	}
	return &volumeCollector{
		store:      store,
		capacity:   desc("volume_capacity_bytes", "Size of the file system of a data directory."),
		free:       desc("volume_free_bytes", "Bytes that chunks may still take in a data directory; what is in its trash counts as free."),
		used:       desc("volume_chunk_bytes", "Bytes of chunks held in a data directory."),
		chunks:     desc("volume_chunks", "Chunks held in a data directory."),
		writable:   desc("volume_writable", "0 when the disk of a data directory has failed or does not answer."),
		gone:       desc("volume_gone", "1 when a data directory is out of service: its chunks do not count."),
		trashBytes: desc("trash_bytes", "Bytes of chunks in the trash of a data directory."),
		trashFiles: desc("trash_files", "Chunks in the trash of a data directory."),

		segmentBytes: desc("segment_bytes", "Bytes of small chunks in the segments of a data directory, removed ones too."),
		deadBytes:    desc("segment_dead_bytes", "Bytes of them that are given back when their segment is compacted."),
	}
}

// Describe implements prometheus.Collector.
func (c *volumeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.capacity, c.free, c.used, c.chunks, c.writable, c.gone, c.trashBytes, c.trashFiles, c.segmentBytes, c.deadBytes} {
		out <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *volumeCollector) Collect(out chan<- prometheus.Metric) {
	for _, v := range c.store.Volumes() {
		gauge := func(desc *prometheus.Desc, value float64) {
			out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, v.Dir)
		}
		gauge(c.capacity, float64(v.Capacity))
		gauge(c.free, float64(v.Free))
		gauge(c.used, float64(v.Used))
		gauge(c.chunks, float64(v.Chunks))
		gauge(c.writable, boolean(v.Failure == nil))
		gauge(c.gone, boolean(v.Gone))
		gauge(c.trashBytes, float64(v.TrashBytes))
		gauge(c.trashFiles, float64(v.TrashFiles))
		gauge(c.segmentBytes, float64(v.SegmentBytes))
		gauge(c.deadBytes, float64(v.DeadBytes))
	}
}

func boolean(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
