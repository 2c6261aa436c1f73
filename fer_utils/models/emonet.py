"""EmoNet: the VGG-S-like baseline that checks whether the merged data are consistent."""

from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from fer_utils.models.inputs import Standardise


class EmoNet(nn.Module):
    """VGG-S (Chatfield et al. 2014) as Duncan, Shine and English (2016) used it, for 64×64 grey images.

    ======== ================================= =======================
    layer    what it does                      output at `width` = 0.5
    ======== ================================= =======================
    input    standardised image                1 × 64 × 64
    conv1    7×7, stride 2                     48 × 32 × 32
    pool1    max 3×3, stride 2                 48 × 16 × 16
    conv2    5×5                               128 × 16 × 16
    pool2    max 2×2, stride 2                 128 × 8 × 8
    conv3    3×3                               256 × 8 × 8
    conv4    3×3                               256 × 8 × 8
    conv5    3×3                               256 × 8 × 8
    pool5    max 2×2, stride 2                 256 × 4 × 4
    fc6      fully connected                   2048
    fc7      fully connected                   2048
    fc8      fully connected, logits           6
    ======== ================================= =======================

    What differs from VGG-S: one grey channel of 64×64 instead of three of 224×224, and so smaller poolings;
    batch normalisation instead of local response normalisation; a `width` of half as many filters and units.
    A share `dropout` of the activations is dropped before fc7 and fc8.
    """

    def __init__(self, width: float = 0.5, dropout: float = 0.5, num_classes: int = 6) -> None:
        super().__init__()
        self.options = {"width": width, "dropout": dropout, "num_classes": num_classes}
        c1, c2, c3, units = (round(n * width) for n in (96, 256, 512, 4096))
        self.standardise = Standardise()
        self.features = nn.Sequential()
        self.features.conv1 = Conv2dNormActivation(1, c1, kernel_size=7, stride=2)
        self.features.pool1 = nn.MaxPool2d(3, stride=2, padding=1)
        self.features.conv2 = Conv2dNormActivation(c1, c2, kernel_size=5)
        self.features.pool2 = nn.MaxPool2d(2)
        self.features.conv3 = Conv2dNormActivation(c2, c3, kernel_size=3)
        self.features.conv4 = Conv2dNormActivation(c3, c3, kernel_size=3)
        self.features.conv5 = Conv2dNormActivation(c3, c3, kernel_size=3)
        self.features.pool5 = nn.MaxPool2d(2)
        self.classifier = nn.Sequential()
        self.classifier.fc6 = nn.Linear(c3 * 4 * 4, units)
        self.classifier.relu6 = nn.ReLU(inplace=True)
        self.classifier.drop6 = nn.Dropout(dropout)
        self.classifier.fc7 = nn.Linear(units, units)
        self.classifier.relu7 = nn.ReLU(inplace=True)
        self.classifier.drop7 = nn.Dropout(dropout)
        self.classifier.fc8 = nn.Linear(units, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (B, num_classes), of grey images, float (B, 1, 64, 64) of 0–1."""
        return self.classifier(self.features(self.standardise(images)).flatten(1))
