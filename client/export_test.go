package client

import "time"

// SetPenalty changes how long a DataNode that failed is left out.
func (c *Client) SetPenalty(penalty time.Duration) { c.penalty = penalty }

// SetReportPatience changes how long reports of bad replicas may take.
func (c *Client) SetReportPatience(patience time.Duration) {
	c.reportTimeout, c.reportGrace = patience, patience
}
