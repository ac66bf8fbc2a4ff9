// Package client is the Go library of the distributed file system: it finds
// the leader among the NameNodes, goes on when it dies, and moves the bytes of
// files to and from the DataNodes.
//
//	c, err := client.New(client.Config{NameNodes: []string{"http://localhost:8000"}})
//	...
//	defer c.Close()
//	path, err := dfs.ParsePath("/backup/db.tar")
//	...
//	_, err = c.Upload(ctx, path, file, client.UploadOptions{Size: -1})
//	_, err = c.Download(ctx, path, os.Stdout, client.DownloadOptions{})
//	_, err = c.ReadRange(ctx, path, os.Stdout, 1<<20, 4096)
//
// Metadata calls last at most Config.Timeout each, retries included. Transfers
// last as long as they make progress; end their context to stop them. Errors
// have a dfs.Code and a sentence.
//
// An upload that returned without error is durable on the minimum of replicas
// and in the log of a majority; one that failed left nothing visible. A
// download hands out no byte that was not verified against the checksum in the
// namespace.
//
// Start reading at upload.go (cutting the stream, several chunks at once),
// small.go (files that take a shorter way), sendchunk.go (one chunk to enough
// DataNodes), rescue.go (the commit, and what
// is done when replicas are gone by then), download.go and fetch.go (the way back), piece.go (what is fetched of a chunk, and how it is verified).
// datanode.go is the HTTP spoken with DataNodes, report.go how they
// learn of replicas that look bad.
package client
