"""Making findable what others need: trust anchors in a cluster's ConfigMap.

It knows neither where anchors come from nor who reads them.
"""
