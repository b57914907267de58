"""The papers that model cards cite."""

from __future__ import annotations

from collections.abc import Sequence

_BIBTEX = {
    "mask-adapter": """@inproceedings{li2025maskadapter,
  title     = {Mask-Adapter: The Devil is in the Masks for Open-Vocabulary Segmentation},
  author    = {Li, Yongkang and Cheng, Tianheng and Feng, Bin and Liu, Wenyu and Wang, Xinggang},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year      = {2025},
  note      = {arXiv:2412.04533}
}""",
    "fc-clip": """@inproceedings{yu2023fcclip,
  title     = {Convolutions Die Hard: Open-Vocabulary Segmentation with Single Frozen Convolutional {CLIP}},
  author    = {Yu, Qihang and He, Ju and Deng, Xueqing and Shen, Xiaohui and Chen, Liang-Chieh},
  booktitle = {Advances in Neural Information Processing Systems (NeurIPS)},
  year      = {2023},
  note      = {arXiv:2308.02487}
}""",
    "maft-plus": """@inproceedings{jiao2024maftplus,
  title     = {Collaborative Vision-Text Representation Optimizing for Open-Vocabulary Segmentation},
  author    = {Jiao, Siyu and Zhu, Hongguang and Huang, Jiannan and Zhao, Yao and Wei, Yunchao and Shi, Humphrey},
  booktitle = {European Conference on Computer Vision (ECCV)},
  year      = {2024},
  note      = {arXiv:2408.00744}
}""",
}


def bibtex(names: Sequence[str]) -> str:
    """BibTeX entries of papers: `mask-adapter`, `fc-clip`, `maft-plus`.

    Raises:
        KeyError: if a name is none of these.
    """
    return "\n\n".join(_BIBTEX[name] for name in names)


__all__ = ["bibtex"]
